"""Holding a training where it stands, and letting it go on from there as if nothing had been.

In a pause what comes in is taken and what is being computed is kept, but no round and no step of one begins or ends.
"""

from __future__ import annotations

from django.db import transaction

from folkmoot.errors import WrongState
from folkmoot.protocol.states import RoundState, TrainingState
from folkmoot.server import clock
from folkmoot.server.accounts.models import User
from folkmoot.server.outbox.events import record
from folkmoot.server.trainings.lifecycle.aggregating import is_enough, use_model
from folkmoot.server.trainings.lifecycle.collecting import fill_if_complete
from folkmoot.server.trainings.lifecycle.moments import is_merged, merge_if_complete
from folkmoot.server.trainings.lifecycle.testing import close_if_tested, test_or_close
from folkmoot.server.trainings.models import Round, Training
from folkmoot.server.trainings.moves import locked, move
from folkmoot.server.trainings.transitions import TrainingEvent


@transaction.atomic
def pause(training: Training, *, by: User) -> None:
    """Hold the training; its deadlines stand still. WrongState unless it is under way."""
    training = locked(training.pk)
    if training.state == TrainingState.PAUSED:
        raise WrongState(f"Training {training.pk} is paused already!")
    if not training.is_under_way:
        raise WrongState(f"Training {training.pk} is not under way, but in state {training.state}!")
    move(training, TrainingEvent.PAUSE)
    training.paused_at = clock.now()
    training.save(update_fields=["paused_at"])
    record(training.pk, "training_paused", {"by": str(by.pk)})


@transaction.atomic
def resume(training: Training, *, by: User) -> None:
    """Let the training go on where it stands, with as much time as was left. WrongState unless it is paused."""
    training = locked(training.pk)
    if training.state != TrainingState.PAUSED or training.paused_at is None:
        raise WrongState(f"Training {training.pk} is not paused, but in state {training.state}!")
    move(training, TrainingEvent.RESUME)
    paused_for = clock.now() - training.paused_at
    training.paused_at = None
    training.save(update_fields=["paused_at"])
    record(training.pk, "training_resumed", {"by": str(by.pk)})
    for current in training.rounds.unfinished():
        current.closes_at += paused_for
        current.save(update_fields=["closes_at"])
        _take_up(training, current)


def _take_up(training: Training, current: Round) -> None:
    """Take the step that the round is ready for; whom the pause has kept from being asked is asked as this commits."""
    match current.state:
        case RoundState.OPEN:
            fill_if_complete(training, current)
        case RoundState.AGGREGATING if current.aggregated_at:
            use_model(training, current)
        case RoundState.AGGREGATING if is_enough(training, current):
            record(training.pk, "round_full", {"round": current.number})
        case RoundState.SWAG:
            move(training, TrainingEvent.COLLECT)
            merge_if_complete(training, current)
        case RoundState.MERGING if is_merged(training):
            test_or_close(training, current)
        case RoundState.MERGING:
            record(training.pk, "swag_full", {"round": current.number})
        case RoundState.TESTING:
            close_if_tested(training, current)
