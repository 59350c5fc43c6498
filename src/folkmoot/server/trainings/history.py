"""Which round made which of a model's checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from django.db.models import Prefetch

from folkmoot.server.registry.models import Checkpoint, Model
from folkmoot.server.trainings.models import Round, Update


@dataclass(frozen=True)
class Step:
    """A checkpoint and how it came to be; `made_in` is None of the first one, and once the training was removed."""

    checkpoint: Checkpoint
    origin: Literal["upload", "copy", "aggregation"]
    made_in: Round | None


def history_of(model: Model) -> list[Step]:
    """All checkpoints, the oldest first, each with its round and the updates that went into it."""
    made_in = {each.number + 1: each for each in _aggregated_rounds(model)}
    # Checksums are for those who read the files, and may be large.
    checkpoints = list(model.checkpoints.defer("checksums").order_by("round"))
    begun = [Step(first, "upload" if model.parent_round is None else "copy", None) for first in checkpoints[:1]]
    return begun + [Step(each, "aggregation", made_in.get(each.round)) for each in checkpoints[1:]]


def _aggregated_rounds(model: Model) -> list[Round]:
    updates = Prefetch("updates", Update.objects.defer("checksums"))
    rounds = Round.objects.filter(training__model=model, aggregated_at__isnull=False)
    return list(rounds.select_related("training").prefetch_related(updates))
