"""Recording events, claiming them, handling them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction

from folkmoot.errors import Unavailable
from folkmoot.server import clock, request_ids
from folkmoot.server.faults import fault_point
from folkmoot.server.forgettable import forgettable
from folkmoot.server.outbox.alarm import alarms
from folkmoot.server.outbox.leases import MAX_PAUSE_SECONDS, claim, held, kept
from folkmoot.server.outbox.models import Event, Lane

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""How often an event is tried whose handler fails; waiting for storage is no failure, and has a limit of its own."""
MAX_INTERRUPTIONS = 10
"""How often in a row a process may end over an event: others may have killed it, but in the end it is the event."""

Handler = Callable[[Event], None]
_handlers: dict[str, tuple[Handler, Handler]] = {}


class AwaitsStorage(Exception):
    """Raised by a handler that cannot go on until something outside is mended, and then can; its text says what."""


def give_up_silently(event: Event) -> None:
    """What happens when an event has failed too often and its handler names nothing else."""


def handles(kind: str, *, give_up: Handler = give_up_silently) -> Callable[[Handler], Handler]:
    """Register the function for events of this kind. It may run twice: it asks first whether its work is still wanted.

    After MAX_ATTEMPTS failures, MAX_INTERRUPTIONS, or FOLKMOOT_STORAGE_WAIT seconds of AwaitsStorage, `give_up` is
    called instead, once; the event's `error` then says what was the matter.
    """

    def register(handler: Handler) -> Handler:
        _handlers[kind] = (handler, give_up)
        return handler

    return register


def record(subject: UUID, kind: str, payload: dict[str, Any] | None = None, *, lane: Lane = Lane.TRAININGS) -> Event:
    """Write an event in the caller's transaction, and wake a worker when that commits.

    Nothing follows from a kind that no handler is registered for: it is history from the start.
    """
    handled_at = None if kind in _handlers else clock.now()
    event = Event.objects.create(
        subject=subject,
        kind=kind,
        payload=payload or {},
        lane=lane,
        handled_at=handled_at,
        request_id=request_ids.current(),
    )
    if handled_at is None:
        transaction.on_commit(alarms[lane].ring)
    return event


def handle_next_event(lane: Lane) -> bool:
    """Claim the oldest due event of the lane and handle it; return whether there was one."""
    event = claim(lane)
    if event is None:
        return False
    with request_ids.on_behalf_of(event.request_id):
        _handle_claimed(event)
    return True


def _handle_claimed(event: Event) -> None:
    began = time.monotonic()
    fault_point(f"{event.kind}.claimed")
    try:
        with kept(event):
            _handle(event)
            fault_point(f"{event.kind}.handled")
    except AwaitsStorage as error:
        logger.warning("event %s waits: %s", event, error)
        _wait(event, error)
    except Unavailable as error:  # of something outside: its sentence says it all
        logger.warning("event %s failed for the %d. time: %s", event, event.failures + 1, error)
        _try_again_later(event, error)
    except Exception as error:
        logger.exception("event %s failed for the %d. time", event, event.failures + 1)
        _try_again_later(event, error)
    else:
        _settle(event, handled_at=clock.now(), error="")
        milliseconds = round(1000 * (time.monotonic() - began))
        facts = {"event": event.kind, "subject": str(event.subject), "milliseconds": milliseconds}
        logger.info("%s of %s handled in %d ms", event.kind, event.subject, milliseconds, extra=facts)


def seconds_until_due(lane: Lane) -> float | None:
    """How long until an event that waits to be tried again, or whose lease runs out, can be claimed."""
    waiting = Event.objects.unhandled().filter(lane=lane).order_by("id")
    # The first of each subject alone: those behind it cannot be claimed before it, however long they are due.
    free_at: dict[UUID, datetime] = {}
    for subject, due, leased in waiting.values_list("subject", "due_at", "leased_until").iterator():
        free_at.setdefault(subject, max(due, leased or due))
    return (min(free_at.values()) - clock.now()).total_seconds() if free_at else None


def _handle(event: Event) -> None:
    handler, give_up = _handlers[event.kind]
    if event.interruptions > MAX_INTERRUPTIONS:
        event.error = f"the server ended {event.interruptions} times in a row before it was done"
        give_up(event)
    elif event.failures >= MAX_ATTEMPTS or _has_waited_long(event):
        give_up(event)
    else:
        handler(event)


def _has_waited_long(event: Event) -> bool:
    limit = timedelta(seconds=settings.STORAGE_WAIT)
    return event.waits_since is not None and event.due_at >= event.waits_since + limit


def _wait(event: Event, reason: AwaitsStorage) -> None:
    """Try again after as long as it has waited already, which makes each pause twice the last; without counting it."""
    now = clock.now()
    since = event.waits_since or now
    pause = min(max((now - since).total_seconds(), settings.RETRY_SECONDS), MAX_PAUSE_SECONDS)
    last = since + timedelta(seconds=settings.STORAGE_WAIT)
    due_at = min(now + timedelta(seconds=pause), max(now, last))
    _settle(event, due_at=due_at, waits_since=since, interruptions=0, error=str(reason)[:1000])


def _try_again_later(event: Event, error: Exception) -> None:
    pause = min(settings.RETRY_SECONDS * 2**event.failures, MAX_PAUSE_SECONDS)
    due_at = clock.now() + timedelta(seconds=pause)
    _settle(event, due_at=due_at, failures=event.failures + 1, interruptions=0, error=str(error)[:1000])


def _settle(event: Event, **outcome: Any) -> None:
    """Write what has become of the event, unless another has claimed it meanwhile."""
    # What an event has led to stands by itself; where this is forgotten, its handler sees so and does nothing.
    with forgettable():
        is_ours = held(event).update(leased_until=None, **outcome)
    if not is_ours:
        logger.warning("event %s took longer than its lease, and another has it now", event)
