"""Making the next model from the updates of a full round: slow, outside any transaction, the same bytes if repeated."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from django.conf import settings

from folkmoot.aggregation import Update as AggregationUpdate
from folkmoot.aggregation import aggregate_files, find_strategy
from folkmoot.aggregation.sources import FileSource
from folkmoot.protocol.states import RoundState, TrainingState
from folkmoot.server.faults import fault_point
from folkmoot.server.registry.intake import StoredTensors
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings import lifecycle
from folkmoot.server.trainings.models import Round, Update


def aggregate(training_id: UUID, number: int) -> None:
    """Aggregate the round if that is still wanted; raises AggregationFailed where no model can come of it."""
    full = Round.objects.select_related("training__model").filter(
        training=training_id, number=number, state=RoundState.AGGREGATING, training__state=TrainingState.ONGOING
    )
    current = full.first()
    if current is None:
        return
    draft = get_storage().new_incoming()
    try:
        tensors = _aggregated(current, draft)
        get_storage().adopt(draft, tensors.sha256)
    finally:
        draft.unlink(missing_ok=True)
    fault_point("round_full.blob_written")
    lifecycle.finish_aggregation(current, tensors)
    fault_point("round_full.after_commit")


def _aggregated(current: Round, draft: Path) -> StoredTensors:
    training = current.training
    base = training.model.checkpoints.get(round=current.number)
    report = aggregate_files(
        find_strategy(training.aggregation_method, training.settings.aggregation),
        get_storage().path(base.sha256),
        [_as_input(update) for update in current.updates.all()],
        draft,
    )
    fault_point("round_full.summed")
    return StoredTensors(report.sha256, report.num_bytes)


def _as_input(update: Update) -> AggregationUpdate:
    # By the participant's id: the order in which updates are summed does not depend on when they came.
    path = get_storage().path(update.sha256)
    source = _FaultySource(path, keep_open=False) if settings.TEST_FAULT else path
    return AggregationUpdate(id=str(update.participant_id), path=source, num_examples=update.num_examples)


class _FaultySource(FileSource):
    """A file in the middle of which a test may have the process killed."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        super().read_into(offset, buffer)
        fault_point("round_full.loaded")
