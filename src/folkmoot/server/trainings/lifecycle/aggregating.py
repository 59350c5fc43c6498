"""A full round: what comes of its updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.db import transaction

from folkmoot.aggregation import Scores
from folkmoot.protocol.reasons import ReasonCode
from folkmoot.protocol.rounds import ordinal
from folkmoot.protocol.states import RoundState, UpdateStatus
from folkmoot.server import clock
from folkmoot.server.faults import fault_point
from folkmoot.server.outbox.events import record
from folkmoot.server.registry.intake import StoredFile
from folkmoot.server.registry.services import add_checkpoint
from folkmoot.server.rows import the_one
from folkmoot.server.trainings.lifecycle.collecting import least, retry
from folkmoot.server.trainings.lifecycle.ending import fail, give_reason
from folkmoot.server.trainings.lifecycle.moments import collect_moments
from folkmoot.server.trainings.lifecycle.testing import test_or_close
from folkmoot.server.trainings.models import Aggregation, Round, Training, Update
from folkmoot.server.trainings.moves import locked_if_there
from folkmoot.server.trainings.strategies import needed_updates
from folkmoot.tensors.tensor_file import WrittenFile


@transaction.atomic
def finish_aggregation(
    round: Round,
    tensors: StoredFile,
    *,
    beneath: Sequence[str] = (),
    state: WrittenFile | None = None,
    scores: Mapping[UUID, Scores],
    facts: Mapping[str, Any],
) -> bool:
    """Make these tensors, over those of the files `beneath`, the model, and `state` what its strategy goes on with.

    `scores` say of the updates, by their ids, what has become of them; `facts` are for the manifest. Returns False,
    changing nothing, if someone else has done so, or if these are no longer the updates that stand in the round. In a
    pause the round then waits to go on.
    """
    training = locked_if_there(pk=round.training_id)
    if training is None or not training.is_begun:
        return False
    current = the_one(training.rounds.filter(pk=round.pk, state=RoundState.AGGREGATING, aggregated_at=None))
    if current is None or set(current.counted.standing().order_by().values_list("pk", flat=True)) != set(scores):
        return False
    model = training.model
    model.round = current.number + 1
    model.save(update_fields=["round"])
    add_checkpoint(model, model.round, tensors, beneath=beneath, state=state)
    _note_scores(scores)
    Aggregation.objects.create(round=current, facts=facts)
    give_reason(training, "")
    current.aggregated_at = clock.now()
    current.save(update_fields=["aggregated_at"])
    if training.is_under_way:
        use_model(training, current)
    fault_point("round_full.before_commit")
    return True


def use_model(training: Training, current: Round) -> None:
    """The round's model is made: have its moments collected, have it tested, or close the round."""
    if training.uncertainty_method == "SWAG":
        collect_moments(training, current)
    else:
        test_or_close(training, current)


@transaction.atomic
def reject_update(update: Update, *, reason: str) -> None:
    """Leave a damaged update out of its round, which is being aggregated; where too few are left, ask again."""
    training = locked_if_there(pk=update.round.training_id)
    standing = Update.objects.standing().filter(pk=update.pk)
    current = Round.objects.filter(counted__in=standing, state=RoundState.AGGREGATING).first()
    if training is None or current is None or not training.is_begun:
        return
    current.counted.filter(pk=update.pk).update(status=UpdateStatus.REJECTED, reason=reason)
    facts = {"round": current.number, "participant": str(update.participant_id), "reason": reason}
    record(training.pk, "update_rejected", facts)
    if training.is_under_way:
        is_enough(training, current)


def is_enough(training: Training, current: Round) -> bool:
    """Whether the updates that are left can be aggregated; where they are too few, ask again, or give up."""
    left, rejected = current.counted.standing().count(), current.counted.rejected()
    # Whose sender has left is not missing: the others are all, as if it had left before it sent anything.
    suffice = least(training) if current.missing().exists() else needed_updates(training)
    if left >= suffice or not rejected.exists():
        return True
    if current.may_be_retried:
        retry(training, current)
    else:
        reason = rejected.latest("received_at").reason
        sentence = f"Round {ordinal(current.number)} has {left} updates left: {reason}."
        fail(training.pk, sentence, code=ReasonCode.TOO_FEW_UPDATES)
    return False


@transaction.atomic
def note_wait(training_id: UUID, *, round: int, reason: str) -> None:
    """Say what the round that is being aggregated waits for."""
    training = locked_if_there(pk=training_id)
    waiting = [state for state in RoundState if state.is_aggregating]
    if training is None or not training.is_under_way or training.reason == reason:
        return
    if training.rounds.filter(number=round, state__in=waiting).exists():
        give_reason(training, reason)
        record(training.pk, "round_waits", {"round": round, "reason": reason})


def _note_scores(scores: Mapping[UUID, Scores]) -> None:
    # One by one, which costs a third of telling them all in one statement of as many cases.
    for update, its in scores.items():
        not_chosen = {"status": UpdateStatus.NOT_CHOSEN, "reason": "the strategy chose others"}
        Update.objects.filter(pk=update).update(**asdict(its) | (not_chosen if its.weight == 0 else {}))
