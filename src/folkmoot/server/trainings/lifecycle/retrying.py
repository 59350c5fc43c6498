"""Trying again after an error: what came in is kept, and the step that failed is taken once more."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Max

from folkmoot.errors import WrongState
from folkmoot.protocol.states import RoundState, TrainingState
from folkmoot.server import clock
from folkmoot.server.accounts.models import User
from folkmoot.server.outbox.events import record
from folkmoot.server.trainings import availability
from folkmoot.server.trainings.lifecycle.aggregating import use_model
from folkmoot.server.trainings.lifecycle.collecting import await_quorum, least, open_round, reopen_round
from folkmoot.server.trainings.lifecycle.moments import is_merged
from folkmoot.server.trainings.lifecycle.testing import test_or_close
from folkmoot.server.trainings.models import Round, Training
from folkmoot.server.trainings.moves import deadline, locked, move, move_round
from folkmoot.server.trainings.transitions import RoundEvent, TrainingEvent


@transaction.atomic
def try_again(training: Training, *, by: User) -> None:
    """Go on with the round that failed, or with the next if none was open. WrongState unless in ERROR with its model.

    The round has all its attempts once more.
    """
    training = locked(training.pk)
    if training.state != TrainingState.ERROR:
        raise WrongState(f"Training {training.pk} is not in state ERROR!")
    if training.model.removed_at is not None:
        raise WrongState(f"Training {training.pk} cannot be tried again: its model was removed!")
    training.reason = training.reason_code = ""
    move(training, TrainingEvent.RETRY)
    record(training.pk, "training_retried", {"by": str(by.pk)})
    failed = training.rounds.filter(state=RoundState.FAILED).first()
    if failed is None:
        open_round(training, number=_next_number(training))
    else:
        _try_again(training, failed)


def _next_number(training: Training) -> int:
    last = training.rounds.aggregate(last=Max("number"))["last"]
    return int(training.model.round if last is None else last + 1)


def _try_again(training: Training, current: Round) -> None:
    """By what there is of the round: its model and perhaps the moments of that, all updates that it needs, or fewer."""
    current.attempts_before = current.attempt
    current.attempt += 1
    current.closed_at = None
    if not current.was_asked_for and availability.lacks(training, clock.now()):
        move_round(current, RoundEvent.WAIT)
        await_quorum(training, current)
        return
    move_round(current, RoundEvent.RETRY)
    current.closes_at = deadline(training)
    current.save()
    current.cohort.remove(*current.cohort.exclude(pk__in=training.participants.all()))
    if not current.aggregated_at and current.counted.standing().count() < least(training):
        reopen_round(training, current)
        return
    move_round(current, RoundEvent.FILL)
    current.save()
    if not current.aggregated_at:
        record(training.pk, "round_full", {"round": current.number})
    elif is_merged(training):
        test_or_close(training, current)
    else:
        use_model(training, current)
