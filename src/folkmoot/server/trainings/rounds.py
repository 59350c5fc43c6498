"""Making the next model from the updates of a full round: slow, outside any transaction, the same bytes if repeated."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

from django.conf import settings

from folkmoot.aggregation import Report, aggregate_files
from folkmoot.aggregation import Update as AggregationUpdate
from folkmoot.aggregation.sources import FileSource
from folkmoot.errors import AggregationFailed, DamagedUpdate, StorageFull
from folkmoot.protocol.states import RoundState, TrainingState
from folkmoot.server.faults import fault_point
from folkmoot.server.registry import checkpoints
from folkmoot.server.registry.intake import described
from folkmoot.server.registry.models import Checkpoint, Phase
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings import exchange, lifecycle
from folkmoot.server.trainings.models import Round, Training, Update
from folkmoot.server.trainings.strategies import strategy_of
from folkmoot.tensors.checksums import block_checksums
from folkmoot.tensors.layers import Selected
from folkmoot.tensors.replacing import naming_full_disk
from folkmoot.tensors.schema import Schema
from folkmoot.tensors.tensor_file import write_tensors

logger = logging.getLogger(__name__)


def aggregate(training_id: UUID, number: int) -> None:
    """Aggregate the round if that is still wanted, without the updates that turn out to be damaged.

    Raises AggregationFailed where no model can come of it, Unavailable where something cannot be read for the moment
    and StorageFull, naming the checkpoint, where it cannot be written.
    """
    # Again, too, where others have come to stand in the round meanwhile than those that were aggregated.
    while current := _full_round(training_id, number):
        inputs = _inputs(current)
        try:
            _aggregate(current, inputs)
        except DamagedUpdate as damage:
            _reject(current, inputs, damage)


def _full_round(training_id: UUID, number: int) -> Round | None:
    full = Round.objects.select_related("training__model").filter(
        training=training_id, number=number, state=RoundState.AGGREGATING, training__state=TrainingState.ONGOING
    )
    return full.first()


def _inputs(current: Round) -> list[Update]:
    return list(current.counted.standing().select_related("round", "counted_in"))


def _aggregate(current: Round, inputs: Sequence[Update]) -> None:
    base = current.training.model.latest_checkpoint
    model = checkpoints.schema_of(base)
    travelling = exchange.travelling(current.training, model)
    storage = get_storage()
    with _naming_checkpoint(current.number + 1), storage.draft() as draft, storage.draft() as state_draft:
        with ExitStack() as stack:
            begun_with = {
                number: stack.enter_context(_begun_with(checkpoint, travelling))
                for number, checkpoint in _bases(current, inputs).items()
            }
            report = _aggregated(current, inputs, begun_with, draft, state_draft)
        tensors = described(draft, report.sha256, report.num_bytes)
        storage.adopt(draft, report.sha256)
        if report.state:
            storage.adopt(state_draft, report.state.sha256)
    fault_point("round_full.blob_written")
    beneath = exchange.beneath(base, travelling, model)
    scores = {update.pk: report.scores[_id_of(update)] for update in inputs}
    lifecycle.finish_aggregation(current, tensors, beneath=beneath, state=report.state, scores=scores)
    fault_point("round_full.after_commit")


def _bases(current: Round, inputs: Sequence[Update]) -> dict[int, Checkpoint]:
    """The checkpoints that stale updates began with, by the number of their round, and the one that this round did."""
    model = current.training.model
    stale = {update.round.number for update in inputs if update.staleness}
    return {
        **{each.round: each for each in model.checkpoints.filter(round__in=stale)},
        current.number: model.latest_checkpoint,
    }


def _aggregated(
    current: Round, inputs: Sequence[Update], begun_with: Mapping[int, Path], draft: Path, state_draft: Path
) -> Report:
    strategy = strategy_of(current.training)
    base = current.training.model.latest_checkpoint
    metrics = _metrics_of(current.training, {update.round.number for update in inputs})
    report = aggregate_files(
        strategy,
        begun_with[current.number],
        [_as_input(update, metrics, begun_with) for update in inputs],
        draft,
        state=_state_of(base) if base.state_sha256 else None,
        state_output=state_draft if strategy.keeps_state else None,
    )
    fault_point("round_full.summed")
    return report


def _state_of(checkpoint: Checkpoint) -> Path:
    if not get_storage().is_intact(checkpoint.state_sha256):
        raise AggregationFailed(f"the state of checkpoint {checkpoint.round} is damaged, or gone")
    return get_storage().path(checkpoint.state_sha256)


def _reject(current: Round, inputs: Sequence[Update], damage: DamagedUpdate) -> None:
    damaged = [each for each in inputs if _id_of(each) == damage.update_id]
    if not damaged:  # it is the model itself
        raise damage
    logger.error("training %s, round %d: %s", current.training_id, current.number, damage)
    for update in damaged:
        # Gone, so that the same bytes are written anew if they come again.
        get_storage().remove_if_damaged(update.sha256)
        lifecycle.reject_update(update, reason=damage.message)


@contextmanager
def _naming_checkpoint(number: int) -> Iterator[None]:
    what = f"checkpoint {number}"
    try:
        with naming_full_disk(what):
            yield
    except StorageFull as error:  # it names a draft
        raise StorageFull(f"no space left to write {what}") from error


@contextmanager
def _begun_with(base: Checkpoint, travelling: Schema) -> Iterator[Path]:
    """The file of the tensors that travel, as the round began with them: the checkpoint's own, or one made of it."""
    own = checkpoints.open_blob(base.sha256)
    if base.checksums and block_checksums(own.data) != bytes(base.checksums):
        raise AggregationFailed(f"checkpoint {base.round} is damaged: its bytes are not those that were written")
    if own.schema == travelling:
        yield get_storage().path(base.sha256)
        return
    with get_storage().draft() as draft:
        write_tensors(draft, Selected(checkpoints.tensors_of(base), travelling))
        yield draft


Metrics = Mapping[tuple[UUID, int], Mapping[str, float]]


def _metrics_of(training: Training, numbers: Collection[int]) -> Metrics:
    """The numbers that came with updates, by participant and round; the last where a name came several times."""
    sent = training.model.metrics.filter(phase=Phase.TRAIN, step__in=numbers)
    found: dict[tuple[UUID, int], dict[str, float]] = defaultdict(dict)
    for reporter, step, name, value in sent.order_by("id").values_list("reporter", "step", "key", "value_float"):
        if value is not None:
            found[reporter, step][name] = value
    return found


def _id_of(update: Update) -> str:
    """By the participant's id: the order in which updates are summed does not depend on when they came."""
    return f"{update.participant_id}@{update.round.number}" if update.staleness else str(update.participant_id)


def _as_input(update: Update, metrics: Metrics, begun_with: Mapping[int, Path]) -> AggregationUpdate:
    path, number = get_storage().path(update.sha256), update.round.number
    return AggregationUpdate(
        id=_id_of(update),
        path=_FaultySource(path) if settings.TEST_FAULT else path,
        num_examples=update.num_examples,
        metrics=metrics.get((update.participant_id, number), {}),
        base=begun_with[number] if update.staleness else None,
        staleness=update.staleness,
        checksums=bytes(update.checksums),
    )


class _FaultySource(FileSource):
    """A file in the middle of which a test may have the process killed."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        super().read_into(offset, buffer)
        fault_point("round_full.loaded")
