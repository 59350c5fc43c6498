"""Who is there: who has asked for work a moment ago, or has an endpoint that answers."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from django.db import Error, transaction
from django.db.models import OuterRef, Q, QuerySet, Subquery

from folkmoot.server import clock
from folkmoot.server.accounts.models import User
from folkmoot.server.forgettable import forgettable
from folkmoot.server.notifications.models import Notification, Presence, Push

logger = logging.getLogger(__name__)

ONLINE_FOR = timedelta(seconds=90)
"""A poll is held up to 60 s and noted only every 30 s, so whoever polls without a pause is always online."""
NOTE_SECONDS = 30
MOST_REMEMBERED = 100_000

# When each user was last noted by this process, by its monotonic clock: most polls cost no write, and no query.
_noted: dict[UUID, float] = {}


def note_seen(user: User, user_agent: str = "") -> None:
    """The user is there; written at most once in half a minute, and never a reason for a request to fail."""
    note_all_seen({user.pk: user_agent})


def note_all_seen(user_agents: Mapping[UUID, str]) -> None:
    """All these users are there, with these programs."""
    now = time.monotonic()
    versions = {
        user_id: version_in(user_agent)
        for user_id, user_agent in user_agents.items()
        if now - _noted.get(user_id, -NOTE_SECONDS) >= NOTE_SECONDS
    }
    if not versions:
        return
    if len(_noted) + len(versions) > MOST_REMEMBERED:
        _noted.clear()
    _noted.update(dict.fromkeys(versions, now))
    try:
        with forgettable():
            _write(versions)
    except Error as error:  # that is locked, or whose disk is full; or a user is gone this moment
        logger.warning("cannot note who was seen: %s", error)


def version_in(user_agent: str) -> str:
    """The version of our client library in the header of a request; empty of any other program."""
    found = re.match(r"folkmoot/([0-9A-Za-z.+-]{1,40})(?: |$)", user_agent)
    return found[1] if found else ""


def online(users: Iterable[UUID], now: datetime) -> QuerySet[User]:
    """Those of the users who were seen lately, or whose endpoint took the last push, or was never tried."""
    tried = Notification.objects.filter(recipient=OuterRef("pk")).exclude(push__in=(Push.NONE, Push.PENDING))
    last_push = Subquery(tried.order_by("-number").values("push")[:1])
    found = User.objects.filter(pk__in=users).annotate(last_push=last_push)
    answers = ~Q(message_endpoint="") & (Q(last_push=None) | Q(last_push=Push.ACCEPTED))
    return found.filter(Q(presence__seen_at__gte=now - ONLINE_FOR) | answers)


@transaction.atomic
def _write(versions: Mapping[UUID, str]) -> None:
    seen_at = clock.now()
    for is_known in (False, True):
        # Who comes with another program once does not make its client's version unknown.
        fields = ["seen_at", "client_version"] if is_known else ["seen_at"]
        Presence.objects.bulk_create(
            [
                Presence(user_id=user_id, seen_at=seen_at, client_version=version)
                for user_id, version in sorted(versions.items())
                if bool(version) == is_known
            ],
            update_conflicts=True,
            unique_fields=["user"],
            update_fields=fields,
        )
