"""Making the next model from the updates of a full round: slow, outside any transaction, the same bytes if repeated."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from folkmoot.errors import DamagedUpdate, StorageFull
from folkmoot.protocol.states import RoundState, TrainingState
from folkmoot.server.faults import fault_point
from folkmoot.server.registry.intake import described
from folkmoot.server.rows import the_one
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings import exchange, lifecycle
from folkmoot.server.trainings.models import Round, Update
from folkmoot.server.trainings.provenance import provenance_of
from folkmoot.server.trainings.recipes import carry_out, checksums_of, recipe_of
from folkmoot.tensors.replacing import naming_full_disk

logger = logging.getLogger(__name__)


def aggregate(training_id: UUID, number: int) -> None:
    """Aggregate the round if that is still wanted, without the updates that turn out to be damaged.

    Raises AggregationFailed where no model can come of it, Unavailable where something cannot be read for the moment
    and StorageFull, naming the checkpoint, where it cannot be written.
    """
    # Again, too, where others have come to stand in the round meanwhile than those that were aggregated.
    while current := full_round(training_id, number):
        inputs = inputs_of(current)
        try:
            if _aggregate(current, inputs):
                return
        except DamagedUpdate as damage:
            reject(current, inputs, damage)


def full_round(training_id: UUID, number: int) -> Round | None:
    """The round, if it is to be aggregated now."""
    full = Round.objects.select_related("training__model").filter(
        training=training_id, number=number, state=RoundState.AGGREGATING, training__state=TrainingState.ONGOING
    )
    return the_one(full)


def inputs_of(current: Round) -> list[Update]:
    return list(current.counted.standing().select_related("round"))


def _aggregate(current: Round, inputs: Sequence[Update]) -> bool:
    """Whether it was these updates that the model is of now."""
    recipe = recipe_of(current, inputs)
    storage = get_storage()
    with _naming_checkpoint(current.number + 1), storage.draft() as draft, storage.draft() as state_draft:
        report = carry_out(recipe, draft, state_draft, checksums=checksums_of(current, inputs))
        tensors = described(draft, report.sha256, report.num_bytes)
        storage.adopt(draft, report.sha256)
        if report.state:
            storage.adopt(state_draft, report.state.sha256)
    fault_point("round_full.blob_written")
    is_used = lifecycle.finish_aggregation(
        current,
        tensors,
        beneath=exchange.beneath_next(current.training),
        state=report.state,
        scores=recipe.by_update(report.scores),
        facts=provenance_of(recipe, tensors, report.state),
    )
    fault_point("round_full.after_commit")
    return is_used


def reject(current: Round, inputs: Sequence[Update], damage: DamagedUpdate) -> None:
    """Leave out the update that is damaged; raises the damage again where it is none of them."""
    ids = {each.update for each in recipe_of(current, inputs).inputs if each.id == damage.update_id}
    damaged = [each for each in inputs if str(each.pk) in ids]
    if not damaged:  # it is the model itself
        raise damage
    logger.error("training %s, round %d: %s", current.training_id, current.number, damage)
    for update in damaged:
        get_storage().distrust(update.sha256)
        lifecycle.reject_update(update, reason=damage.message)


@contextmanager
def _naming_checkpoint(number: int) -> Iterator[None]:
    what = f"checkpoint {number}"
    try:
        with naming_full_disk(what):
            yield
    except StorageFull as error:  # it names a draft
        raise StorageFull(f"no space left to write {what}") from error
