"""How a training ends early, and the sentence that says what it waits for or what went wrong."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from folkmoot.protocol.reasons import ReasonCode
from folkmoot.protocol.states import UpdateStatus
from folkmoot.server.notifications.delivery import settle_training
from folkmoot.server.outbox.events import record
from folkmoot.server.trainings.models import Training, Update
from folkmoot.server.trainings.moves import locked_if_there, move, move_round
from folkmoot.server.trainings.transitions import RoundEvent, TrainingEvent


@transaction.atomic
def fail(training_id: UUID, reason: str, *, code: ReasonCode) -> None:
    """The training cannot go on, for a reason that one sentence tells; nothing happens unless it is under way."""
    training = locked_if_there(pk=training_id)
    if training is None or not training.is_under_way:
        return
    for current in training.rounds.unfinished():
        move_round(current, RoundEvent.FAIL)
        current.save()
    training.reason, training.reason_code = reason, code
    move(training, TrainingEvent.FAIL)
    settle_training(training.pk)
    record(training.pk, "training_failed", {"reason": reason, "code": code})


def stop_now(training: Training, *, reason: str, code: ReasonCode) -> None:
    """End the training where it is: the last checkpoint stands, and what is in no aggregate never will be."""
    for current in training.rounds.unfinished():
        move_round(current, RoundEvent.CLOSE if current.aggregated_at else RoundEvent.FAIL)
        current.save()
    cut_off = Update.objects.filter(round__training=training, status=UpdateStatus.WAITING)
    cut_off.update(status=UpdateStatus.LATE, reason="the training was stopped", counted_in=None)
    training.reason, training.reason_code = reason, code
    move(training, TrainingEvent.STOP)
    settle_training(training.pk)
    record(training.pk, "training_stopped", {"reason": reason, "code": code})


def give_reason(training: Training, reason: str) -> None:
    if training.reason != reason:
        training.reason = reason
        training.save(update_fields=["reason"])
