"""The facts of which a training's sentence is made (explaining.py), as the database has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.db.models import QuerySet

from folkmoot.protocol.rounds import ordinal
from folkmoot.protocol.states import Doing, RoundState, TrainingState
from folkmoot.server import clock
from folkmoot.server.accounts.models import User
from folkmoot.server.registry.models import Phase
from folkmoot.server.trainings import availability, buffering
from folkmoot.server.trainings.explaining import Awaited, Facts, Step
from folkmoot.server.trainings.models import Round, Training
from folkmoot.server.trainings.strategies import buffer_of, needed_updates

MOST_AWAITED = 1000


def facts_of(training: Training, *, shown_to: User) -> Facts:
    """What the training is doing now; of what the others are doing participants are told no more than their number."""
    newest = training.rounds.order_by("-number").first()
    step = _step(training, newest) if newest else None
    if step and not training.shows_all_to(shown_to):
        own = [each for each in step.awaited if each.id == shown_to.pk]
        step = replace(step, awaited=own, unnamed=step.unnamed + len(step.awaited) - len(own))
    return Facts(
        now=clock.now(),
        state=TrainingState(training.state),
        num_rounds=training.target_num_updates,
        rounds_before=training.first_round,
        num_participants=training.participants.count(),
        reason=training.reason,
        step=step,
        stops_after_round=training.stops_after_round,
    )


def _step(training: Training, current: Round) -> Step:
    return Step(
        number=ordinal(current.number),
        state=RoundState(current.state),
        closes_at=current.closes_at,
        is_last_attempt=not current.may_be_retried,
        **(_counts(training, current) if training.is_begun else {}),
    )


def _counts(training: Training, current: Round) -> dict[str, Any]:
    match current.state:
        case RoundState.WAITING:
            return _online(training)
        case RoundState.OPEN:
            return _updates(training, current)
        case RoundState.SWAG:
            sent = current.statistics
            awaited = current.cohort.exclude(pk__in=sent.values("participant"))
            return _answers(current, awaited, arrived=sent.with_examples().count())
        case RoundState.TESTING:
            reporters = training.model.metrics.filter(step=training.model.round, phase=Phase.TEST).values("reporter")
            arrived = current.cohort.filter(pk__in=reporters).count()
            return _answers(current, current.cohort.exclude(pk__in=reporters), arrived=arrived)
    return {}


def _online(training: Training) -> dict[str, Any]:
    now, wanted = clock.now(), training.settings.min_available or 0
    absent = _awaited(availability.absent(training, now), doing=None)
    return {"wanted": wanted, "arrived": wanted - availability.lacks(training, now), **absent}


def _updates(training: Training, current: Round) -> dict[str, Any]:
    min_updates, buffer = training.settings.min_updates, buffer_of(training)
    least = None if min_updates is None else max(min_updates, needed_updates(training))
    arrived = buffering.arrived(training, current).count()
    if buffer:
        return {"wanted": buffer.size, "arrived": arrived, "least": least, "is_buffered": True}
    # Who has left is missing no more, and what it sent counts; who says that none will come is missing still.
    wanted = current.goal or arrived + current.missing().count()
    found = _awaited(current.awaited())
    found["awaited"] = _with_what_they_do(current, found["awaited"])
    return {"wanted": wanted, "arrived": arrived, "least": least, **found}


def _answers(current: Round, awaited: QuerySet[User], *, arrived: int) -> dict[str, Any]:
    """Of a step without a quorum: who is excused from it, or has nothing to send, is not counted at all."""
    found = _awaited(awaited)
    possible = arrived + len(found["awaited"]) + found["unnamed"]
    return {"wanted": min(current.goal or possible, possible), "arrived": arrived, **found}


def _awaited(users: QuerySet[User], *, doing: Doing | None = Doing.ASSIGNED) -> dict[str, Any]:
    listed = users.select_related("presence").order_by("username")[:MOST_AWAITED]
    seen = [(each, each.presence.seen_at if hasattr(each, "presence") else None) for each in listed]
    people = [Awaited(each.pk, each.username, doing, last_seen=seen_at) for each, seen_at in seen]
    return {"awaited": people, "unnamed": users.count() - MOST_AWAITED if len(people) == MOST_AWAITED else 0}


def _with_what_they_do(current: Round, people: Sequence[Awaited]) -> list[Awaited]:
    asked = current.assignments.filter(user__in=[each.id for each in people])
    said = {each.user_id: (Doing(each.doing), each.percent) for each in asked}
    # Who leaves this moment is awaited no more.
    there = [(each, *said[each.id]) for each in people if each.id in said]
    return [replace(each, doing=doing, percent=percent) for each, doing, percent in there]
