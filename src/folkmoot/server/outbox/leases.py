"""Whose an event is: claimed for a while, kept while it is worked on, lost to whoever claims it after that.

`attempts` numbers the claims. Whoever was overtaken holds a claim of an old number, and changes nothing with it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connections
from django.db.models import Exists, OuterRef

from folkmoot.server import clock
from folkmoot.server.forgettable import forgettable
from folkmoot.server.outbox.models import Event, EventQuerySet, Lane

logger = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 3
MAX_PAUSE_SECONDS = 300
"""Before an event is tried again."""


def claim(lane: Lane) -> Event | None:
    """Take the oldest due event of the lane. Of two workers that see it, the one whose UPDATE finds it has it.

    Its last lease is still there if whoever had it ended without a word: that is counted.
    """
    now = clock.now()
    while event := next_in_turn(lane, now):
        as_seen = Event.objects.free(now).filter(pk=event.pk, attempts=event.attempts)
        event.attempts += 1
        event.interruptions += event.leased_until is not None
        # Without the lease it is claimed once more after a power cut, as it would be with it.
        with forgettable():
            is_ours = as_seen.update(
                attempts=event.attempts, interruptions=event.interruptions, leased_until=now + _lease()
            )
        if is_ours:
            return event
    return None


def next_in_turn(lane: Lane, now: datetime) -> Event | None:
    """The oldest free event of which no earlier one of the same subject is unhandled."""
    earlier = Event.objects.unhandled().filter(lane=lane, subject=OuterRef("subject"), id__lt=OuterRef("id"))
    return Event.objects.free(now).filter(~Exists(earlier), lane=lane).order_by("id").first()


def held(event: Event) -> EventQuerySet:
    """The event's row as long as nobody has claimed it since: what one writes about an event, one writes to this."""
    return Event.objects.unhandled().filter(pk=event.pk, attempts=event.attempts, leased_until__isnull=False)


def hold(event: Event) -> bool:
    """Whether the event is still held; until the caller's transaction ends nobody else can claim it then."""
    return held(event).select_for_update().exists()


@contextmanager
def kept(event: Event) -> Iterator[None]:
    """Renew the lease for as long as the block runs."""
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(event, done), name=f"lease of {event}", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()


def release_leases() -> None:
    """Let every event be claimed at once. Only for the one process of an embedded server, as it starts."""
    now = clock.now()
    Event.objects.unhandled().filter(leased_until__isnull=False).update(leased_until=now)
    # No pause is so long: the time of day was set back meanwhile.
    Event.objects.unhandled().filter(due_at__gt=now + timedelta(seconds=MAX_PAUSE_SECONDS)).update(due_at=now)


def _renew(event: Event, done: threading.Event) -> None:
    try:
        while not done.wait(settings.LEASE_SECONDS / RENEWALS_PER_LEASE):
            try:
                if not held(event).update(leased_until=clock.now() + _lease()):
                    return
            except Exception:
                # Mostly the database that does not answer; without this thread others would take the event.
                logger.exception("the lease of event %s could not be renewed; trying again", event)
                connections.close_all()
    finally:
        connections.close_all()


def _lease() -> timedelta:
    return timedelta(seconds=settings.LEASE_SECONDS)
