"""A step whose time is up."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from folkmoot.protocol.reasons import ReasonCode
from folkmoot.protocol.rounds import ordinal
from folkmoot.protocol.states import RoundState
from folkmoot.server.trainings import buffering
from folkmoot.server.trainings.lifecycle.collecting import fill, least, note_late, retry
from folkmoot.server.trainings.lifecycle.ending import fail
from folkmoot.server.trainings.lifecycle.moments import merge
from folkmoot.server.trainings.lifecycle.testing import close
from folkmoot.server.trainings.lifecycle.waiting import wait_again
from folkmoot.server.trainings.models import Round
from folkmoot.server.trainings.moves import locked_if_there


@transaction.atomic
def close_if_overdue(round: Round, now: datetime) -> None:
    """At the deadline: go on with those who answered if they suffice, else ask again, else give up."""
    training = locked_if_there(pk=round.training_id)
    current = Round.objects.overdue(now).filter(pk=round.pk).first()
    if training is None or current is None:
        return
    if current.state == RoundState.WAITING:
        wait_again(training, current, now)
        return
    if current.state == RoundState.TESTING:
        close(training, current)
        return
    if current.state == RoundState.SWAG:
        merge(training, current)
        return
    arrived = buffering.arrived(training, current).count()
    if training.settings.min_updates is not None and arrived >= least(training):
        fill(training, current)
    elif current.may_be_retried:
        retry(training, current)
    else:
        note_late(current)
        missing = ", ".join(current.missing().values_list("username", flat=True))
        reason = f"Round {ordinal(current.number)} got {arrived} updates in time; missing: {missing}."
        fail(training.pk, reason, code=ReasonCode.QUORUM)
