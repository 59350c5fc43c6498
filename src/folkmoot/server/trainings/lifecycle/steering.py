"""What the actor has a training do."""

from __future__ import annotations

from django.db import transaction

from folkmoot.errors import WrongState
from folkmoot.protocol.reasons import ReasonCode
from folkmoot.protocol.states import TrainingState
from folkmoot.server.accounts.models import User
from folkmoot.server.faults import fault_point
from folkmoot.server.notifications.delivery import settle_training
from folkmoot.server.outbox.events import record
from folkmoot.server.trainings.lifecycle.collecting import open_round
from folkmoot.server.trainings.lifecycle.ending import stop_now
from folkmoot.server.trainings.models import Training
from folkmoot.server.trainings.moves import locked, move
from folkmoot.server.trainings.strategies import needed_updates
from folkmoot.server.trainings.transitions import TrainingEvent


@transaction.atomic
def start(training: Training, *, by: User) -> None:
    """Open the first round. WrongState unless the training is new and has enough participants."""
    training = locked(training.pk)
    if training.state != TrainingState.INITIAL:
        raise WrongState(f"Training {training.pk} is not in state INITIAL!")
    registered, needed = training.participants.count(), needed_updates(training)
    if not registered:
        raise WrongState("At least one participant must be registered!", code="no_participants")
    if registered < needed:
        sentence = f"{training.aggregation_method} needs {needed} participants, and {registered} take part!"
        raise WrongState(sentence, code="too_few_participants")
    wanted = training.settings.min_available or 0
    if registered < wanted:
        sentence = f"options.min_available is {wanted}, and {registered} take part!"
        raise WrongState(sentence, code="too_few_participants")
    move(training, TrainingEvent.START)
    record(training.pk, "training_started", {"by": str(by.pk)})
    open_round(training, number=training.model.round)
    fault_point("start.before_commit")


@transaction.atomic
def stop(training: Training, *, by: User, at_end_of_round: bool = False) -> None:
    """End the training now, or once the round under way is closed; what is not begun or has failed ends now.

    In daisy chaining it is the round that aggregates. WrongState for one that is over, or is to stop already.
    """
    training = locked(training.pk)
    if training.state in (TrainingState.COMPLETED, TrainingState.STOPPED):
        raise WrongState(f"Training {training.pk} is over, in state {training.state}!")
    if not (at_end_of_round and training.is_begun):
        record(training.pk, "stop_asked_for", {"by": str(by.pk), "when": "now"})
        stop_now(training, reason="Stopped on request.", code=ReasonCode.STOPPED)
        return
    if training.stops_after_round:
        raise WrongState(f"Training {training.pk} is to stop at the end of its round already!")
    training.stops_after_round = True
    training.save(update_fields=["stops_after_round"])
    record(training.pk, "stop_asked_for", {"by": str(by.pk), "when": "end_of_round"})


@transaction.atomic
def delete(training: Training) -> None:
    """Stop the training if it runs, and remove it; its model stays, with its checkpoints and metrics."""
    training = locked(training.pk)
    settle_training(training.pk)
    record(training.pk, "training_deleted", {"state": training.state})
    training.delete()
    if training.model.removed_at is not None:
        training.model.delete()
