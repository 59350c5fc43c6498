"""Which round made which of a model's checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.db.models import Prefetch

from folkmoot.server.registry.models import Checkpoint, Model, Origin
from folkmoot.server.trainings.models import Round, Update


@dataclass(frozen=True)
class Step:
    """A checkpoint and how it came to be; `made_in` is None of the first one, and once the training was removed."""

    checkpoint: Checkpoint
    made_in: Round | None


class History:
    """All checkpoints, the oldest first, each with its round and the updates that went into it; pages can be cut."""

    def __init__(self, model: Model) -> None:
        self._model = model
        # Checksums are for those who read the files, and may be large.
        self._checkpoints = model.checkpoints.defer("checksums").order_by("round")

    def count(self) -> int:
        return self._checkpoints.count()

    def __iter__(self) -> Iterator[Step]:
        return iter(self[:])

    def __getitem__(self, page: slice) -> list[Step]:
        checkpoints = list(self._checkpoints[page])
        made_in = {each.number + 1: each for each in self._rounds_of(checkpoints)}
        return [
            Step(each, made_in.get(each.round) if each.origin == Origin.AGGREGATION else None) for each in checkpoints
        ]

    def _rounds_of(self, checkpoints: Sequence[Checkpoint]) -> list[Round]:
        if not checkpoints:
            return []
        updates = Prefetch("counted", Update.objects.in_aggregate().defer("checksums"))
        aggregated = Round.objects.filter(training__model=self._model, aggregated_at__isnull=False)
        wanted = aggregated.filter(number__range=(checkpoints[0].round - 1, checkpoints[-1].round - 1))
        return list(wanted.select_related("training").prefetch_related(updates))
