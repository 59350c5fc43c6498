"""What participants say of their work on a round's update, and who of them was seen when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Max, Q

from folkmoot.protocol.states import Doing
from folkmoot.server import clock
from folkmoot.server.accounts.models import User
from folkmoot.server.forgettable import forgettable
from folkmoot.server.notifications.models import Presence
from folkmoot.server.trainings import admission, lifecycle
from folkmoot.server.trainings.models import Assignment, Participation, Training

MIN_INTERVAL = timedelta(seconds=1)
"""Between two reports of one participant that are written; what comes sooner and says nothing new is left out."""


def report(
    training: Training, participant: User, *, round: int, doing: Doing, percent: float | None = None, reason: str = ""
) -> None:
    """Note what the participant is doing in this round. Raises as for an update of which nothing has come."""
    if doing.gives_up:
        lifecycle.give_up_on(training, participant, round=round, doing=doing, reason=reason)
        return
    admission.check_may_report(training, participant, round=round)
    now = clock.now()
    # The round first: with a join PostgreSQL would not look again at what an upload has changed meanwhile.
    current = training.rounds.get(number=round)
    asked = current.assignments.unanswered().filter(user=participant)
    is_news = Q(reported_at=None) | Q(reported_at__lte=now - MIN_INTERVAL)
    if doing == Doing.TRAINING:
        is_news |= Q(doing=Doing.DOWNLOADING)
    with forgettable():
        asked.filter(is_news).update(doing=doing, percent=percent, reason="", reported_at=now)


@dataclass(frozen=True)
class Doings:
    """A participant; `assignment` is its part in the newest round of the training that asked it."""

    participation: Participation
    assignment: Assignment | None
    presence: Presence | None


def doings_of(training: Training, participations: Iterable[Participation]) -> list[Doings]:
    """What each of these participants of the training is doing, in as many queries for many as for few."""
    listed = list(participations)
    users = [each.user_id for each in listed]
    asked = Assignment.objects.filter(round__training=training, user__in=users)
    newest = asked.order_by().values("user").annotate(newest=Max("pk")).values("newest")
    assignments = {each.user_id: each for each in Assignment.objects.filter(pk__in=newest).select_related("round")}
    presences = Presence.objects.in_bulk(users)
    return [Doings(each, assignments.get(each.user_id), presences.get(each.user_id)) for each in listed]
