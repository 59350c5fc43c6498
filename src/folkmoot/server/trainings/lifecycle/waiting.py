"""A round that is not open yet, since too few participants are online."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from folkmoot.protocol.reasons import ReasonCode
from folkmoot.protocol.rounds import ordinal
from folkmoot.protocol.states import RoundState
from folkmoot.server.trainings import availability
from folkmoot.server.trainings.lifecycle.collecting import ask, await_quorum, draw_cohort
from folkmoot.server.trainings.lifecycle.ending import fail
from folkmoot.server.trainings.models import Round, Training
from folkmoot.server.trainings.moves import locked_if_there, move_round
from folkmoot.server.trainings.transitions import RoundEvent


@transaction.atomic
def open_if_available(round: Round, now: datetime) -> None:
    """Open the round if it still waits for participants, and enough of them are online."""
    training = locked_if_there(pk=round.training_id)
    current = Round.objects.filter(pk=round.pk, state=RoundState.WAITING).first()
    if training is not None and training.is_under_way and current is not None:
        admit(training, current, now)


def admit(training: Training, current: Round, now: datetime) -> bool:
    """Open the round if enough participants are online, or fail for good if too few take part; else return False."""
    if availability.lacks(training, now):
        return False
    cohort = draw_cohort(training, current.number)
    if cohort is not None:
        move_round(current, RoundEvent.ADMIT)
        ask(training, current, cohort)
    return True


def wait_again(training: Training, current: Round, now: datetime) -> None:
    """At the deadline: open after all, else wait once more, else give up and say who was not there."""
    if admit(training, current, now):
        return
    if current.may_be_retried:
        move_round(current, RoundEvent.RETRY)
        current.attempt += 1
        await_quorum(training, current)
        return
    lacking, wanted = availability.lacks(training, now), training.settings.min_available
    names = ", ".join(availability.absent(training, now).values_list("username", flat=True))
    missed = f"{lacking} more of {wanted} participants to come online"
    sentence = f"Round {ordinal(current.number)} waited in vain for {missed}; not online: "
    fail(training.pk, f"{sentence}{names or 'nobody that takes part'}.", code=ReasonCode.QUORUM)
