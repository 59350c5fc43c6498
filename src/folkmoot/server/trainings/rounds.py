"""Making the next model from the updates of a full round: slow, outside any transaction, the same bytes if repeated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from django.conf import settings

from folkmoot.aggregation import Update as AggregationUpdate
from folkmoot.aggregation import aggregate_files, find_strategy
from folkmoot.aggregation.sources import FileSource
from folkmoot.protocol.states import RoundState, TrainingState
from folkmoot.server.faults import fault_point
from folkmoot.server.registry import checkpoints
from folkmoot.server.registry.intake import StoredFile, described
from folkmoot.server.registry.models import Checkpoint
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings import exchange, lifecycle
from folkmoot.server.trainings.models import Round, Update
from folkmoot.tensors.layers import Selected
from folkmoot.tensors.schema import Schema
from folkmoot.tensors.tensor_file import write_tensors


def aggregate(training_id: UUID, number: int) -> None:
    """Aggregate the round if that is still wanted; raises AggregationFailed where no model can come of it."""
    full = Round.objects.select_related("training__model").filter(
        training=training_id, number=number, state=RoundState.AGGREGATING, training__state=TrainingState.ONGOING
    )
    current = full.first()
    if current is None:
        return
    base = current.training.model.latest_checkpoint
    model = checkpoints.schema_of(base)
    travelling = exchange.travelling(current.training, model)
    with get_storage().draft() as draft, _begun_with(base, travelling) as start:
        tensors = _aggregated(current, start, draft)
        get_storage().adopt(draft, tensors.sha256)
    fault_point("round_full.blob_written")
    lifecycle.finish_aggregation(current, tensors, beneath=exchange.beneath(base, travelling, model))
    fault_point("round_full.after_commit")


def _aggregated(current: Round, start: Path, draft: Path) -> StoredFile:
    training = current.training
    report = aggregate_files(
        find_strategy(training.aggregation_method, training.settings.aggregation),
        start,
        [_as_input(update) for update in current.updates.all()],
        draft,
    )
    fault_point("round_full.summed")
    return described(draft, report.sha256, report.num_bytes)


@contextmanager
def _begun_with(base: Checkpoint, travelling: Schema) -> Iterator[Path]:
    """The file of the tensors that travel, as the round began with them: the checkpoint's own, or one made of it."""
    if checkpoints.open_blob(base.sha256).schema == travelling:
        yield get_storage().path(base.sha256)
        return
    with get_storage().draft() as draft:
        write_tensors(draft, Selected(checkpoints.tensors_of(base), travelling))
        yield draft


def _as_input(update: Update) -> AggregationUpdate:
    # By the participant's id: the order in which updates are summed does not depend on when they came.
    path = get_storage().path(update.sha256)
    return AggregationUpdate(
        id=str(update.participant_id),
        path=_FaultySource(path) if settings.TEST_FAULT else path,
        num_examples=update.num_examples,
        checksums=bytes(update.checksums),
    )


class _FaultySource(FileSource):
    """A file in the middle of which a test may have the process killed."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        super().read_into(offset, buffer)
        fault_point("round_full.loaded")
