"""Who takes part: joining and leaving at any time."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from folkmoot.errors import WrongState
from folkmoot.protocol.reasons import ReasonCode
from folkmoot.protocol.rounds import ordinal
from folkmoot.protocol.states import RoundState, TrainingState
from folkmoot.server.accounts.models import User
from folkmoot.server.notifications.delivery import settle_training
from folkmoot.server.outbox.events import record
from folkmoot.server.trainings import buffering
from folkmoot.server.trainings.lifecycle.collecting import fill_if_complete
from folkmoot.server.trainings.lifecycle.ending import fail
from folkmoot.server.trainings.lifecycle.moments import merge_if_complete
from folkmoot.server.trainings.lifecycle.testing import close_if_tested, dismiss
from folkmoot.server.trainings.models import Participation, Round, Training
from folkmoot.server.trainings.moves import locked


@transaction.atomic
def add_participants(training: Training, users: Iterable[User]) -> None:
    """Let the users take part, from the next round on; those who do already are left alone.

    After an error too, since they may be what was missing. WrongState once the training is over.
    """
    training = locked(training.pk)
    if training.state in (TrainingState.COMPLETED, TrainingState.STOPPED):
        raise WrongState(f"Training with ID {training.pk} is in state {training.state}")
    seats = [Participation(training=training, user=user) for user in users]
    Participation.objects.bulk_create(seats, ignore_conflicts=True)
    record(training.pk, "participants_added", {"users": [str(seat.user_id) for seat in seats]})


@transaction.atomic
def remove_participants(training: Training, users: Iterable[User], *, reason: str = "") -> None:
    """End the users' part in the training; what they sent already counts. Whoever takes no part is left alone."""
    training = locked(training.pk)
    leaving = Participation.objects.filter(training=training, user__in=users)
    removed = list(leaving.values_list("user_id", flat=True))
    leaving.delete()
    if not removed:
        return
    for user in User.objects.filter(pk__in=removed):
        settle_training(training.pk, recipient=user)
    record(training.pk, "participants_removed", {"users": [str(user) for user in removed], "reason": reason})
    if training.is_begun:
        _go_on_without(training, removed)


def _go_on_without(training: Training, removed: Iterable[UUID]) -> None:
    """Nobody waits for who has left: the round may be full now, or tested, or have nothing to go on with."""
    current = training.rounds.unfinished().get()
    dismiss(current, removed)
    if current.state == RoundState.TESTING:
        close_if_tested(training, current)
    elif current.state == RoundState.SWAG:
        merge_if_complete(training, current)
    elif current.state not in (RoundState.WAITING, RoundState.OPEN):
        return
    elif buffering.arrived(training, current).exists():
        fill_if_complete(training, current)
    elif not _may_be_asked(training, current).exists():
        reason = f"No participants are left for round {ordinal(current.number)}."
        fail(training.pk, reason, code=ReasonCode.NO_PARTICIPANTS)


def _may_be_asked(training: Training, current: Round) -> QuerySet[User]:
    return training.participants.all() if current.state == RoundState.WAITING else current.cohort.all()
