"""Recording events, claiming them, handling them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from folkmoot.errors import Unavailable
from folkmoot.server.faults import fault_point
from folkmoot.server.outbox.alarm import alarms
from folkmoot.server.outbox.models import Event, Lane

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""How often an event is tried whose handler fails; waiting for storage is no failure, and has a limit of its own."""
MAX_PAUSE_SECONDS = 300

Handler = Callable[[Event], None]
_handlers: dict[str, tuple[Handler, Handler]] = {}


class AwaitsStorage(Exception):
    """Raised by a handler that cannot go on until something outside is mended, and then can; its text says what."""


def give_up_silently(event: Event) -> None:
    """What happens when an event has failed too often and its handler names nothing else."""


def handles(kind: str, *, give_up: Handler = give_up_silently) -> Callable[[Handler], Handler]:
    """Register the function for events of this kind. It may run twice: it asks first whether its work is still wanted.

    After MAX_ATTEMPTS failures, or FOLKMOOT_STORAGE_WAIT seconds of AwaitsStorage, `give_up` is called instead, once.
    """

    def register(handler: Handler) -> Handler:
        _handlers[kind] = (handler, give_up)
        return handler

    return register


def record(subject: UUID, kind: str, payload: dict[str, Any] | None = None, *, lane: Lane = Lane.TRAININGS) -> Event:
    """Write an event in the caller's transaction, and wake a worker when that commits.

    Nothing follows from a kind that no handler is registered for: it is history from the start.
    """
    handled_at = None if kind in _handlers else timezone.now()
    event = Event.objects.create(subject=subject, kind=kind, payload=payload or {}, lane=lane, handled_at=handled_at)
    if handled_at is None:
        transaction.on_commit(alarms[lane].ring)
    return event


def handle_next_event(lane: Lane) -> bool:
    """Claim the oldest due event of the lane and handle it; return whether there was one."""
    event = _claim(lane, timezone.now())
    if event is None:
        return False
    fault_point(f"{event.kind}.claimed")
    try:
        _handle(event)
    except AwaitsStorage as error:
        logger.warning("event %s waits: %s", event, error)
        _wait(event, error)
    except Unavailable as error:  # of something outside: its sentence says it all
        logger.warning("event %s failed for the %d. time: %s", event, event.attempts, error)
        _try_again_later(event, error)
    except Exception as error:
        logger.exception("event %s failed for the %d. time", event, event.attempts)
        _try_again_later(event, error)
    else:
        Event.objects.filter(pk=event.pk).update(handled_at=timezone.now(), leased_until=None, error="")
    return True


def seconds_until_due(lane: Lane) -> float | None:
    """How long until an event that waits to be tried again, or whose lease runs out, can be claimed."""
    waiting = Event.objects.unhandled().filter(lane=lane).order_by("id")
    # The first of each subject alone: those behind it cannot be claimed before it, however long they are due.
    free_at: dict[UUID, datetime] = {}
    for subject, due, leased in waiting.values_list("subject", "due_at", "leased_until").iterator():
        free_at.setdefault(subject, max(due, leased or due))
    return (min(free_at.values()) - timezone.now()).total_seconds() if free_at else None


def release_leases() -> None:
    """Let every event be claimed at once. Only for the one process of an embedded server, as it starts."""
    Event.objects.unhandled().update(leased_until=None)


def _claim(lane: Lane, now: datetime) -> Event | None:
    """The compare-and-set: of two workers that see the same event, the one whose UPDATE finds it free has it."""
    while event := _first_in_turn(lane, now):
        lease = timedelta(seconds=settings.LEASE_SECONDS)
        mine = Event.objects.free(now).filter(pk=event.pk)
        if mine.update(leased_until=now + lease, attempts=F("attempts") + 1):
            event.attempts += 1
            return event
    return None


def _first_in_turn(lane: Lane, now: datetime) -> Event | None:
    """The oldest free event of which no earlier one of the same subject is unhandled."""
    free = Event.objects.free(now).filter(lane=lane).order_by("id")
    busy: list[UUID] = []
    while event := free.exclude(subject__in=busy).first():
        if not Event.objects.before(event).exists():
            return event
        busy.append(event.subject)
    return None


def _handle(event: Event) -> None:
    handler, give_up = _handlers[event.kind]
    if event.attempts > MAX_ATTEMPTS or _has_waited_long(event):
        handler = give_up
    handler(event)


def _has_waited_long(event: Event) -> bool:
    limit = timedelta(seconds=settings.STORAGE_WAIT)
    return event.waits_since is not None and event.due_at >= event.waits_since + limit


def _wait(event: Event, reason: AwaitsStorage) -> None:
    """Try again after as long as it has waited already, which makes each pause twice the last; without counting it."""
    now = timezone.now()
    since = event.waits_since or now
    pause = min(max((now - since).total_seconds(), settings.RETRY_SECONDS), MAX_PAUSE_SECONDS)
    last = since + timedelta(seconds=settings.STORAGE_WAIT)
    Event.objects.filter(pk=event.pk).update(
        due_at=min(now + timedelta(seconds=pause), max(now, last)),
        waits_since=since,
        attempts=F("attempts") - 1,
        leased_until=None,
        error=str(reason)[:1000],
    )


def _try_again_later(event: Event, error: Exception) -> None:
    pause = min(settings.RETRY_SECONDS * 2 ** (event.attempts - 1), MAX_PAUSE_SECONDS)
    Event.objects.filter(pk=event.pk).update(
        due_at=timezone.now() + timedelta(seconds=pause), leased_until=None, error=str(error)[:1000]
    )
