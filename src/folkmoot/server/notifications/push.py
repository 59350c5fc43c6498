"""Pushing notifications to participants that have an HTTP endpoint of their own."""

from __future__ import annotations

import logging
from functools import cache
from urllib.parse import urlsplit, urlunsplit

import httpx2
from django.db import transaction
from django.db.models import QuerySet

from folkmoot.errors import NotAllowed, Unavailable
from folkmoot.server.notifications.delivery import PUSH_DUE
from folkmoot.server.notifications.models import Notification, Push
from folkmoot.server.notifications.push_policy import address_to_reach
from folkmoot.server.outbox.events import handles, record
from folkmoot.server.outbox.models import Event

logger = logging.getLogger(__name__)

PUSH_REJECTED = "push_rejected"
PUSH_FAILED = "push_failed"
_TOLD = {Push.REJECTED: PUSH_REJECTED, Push.UNREACHABLE: PUSH_FAILED}
"""The events that the training hears of."""
TIMEOUT = httpx2.Timeout(5, connect=3)


def give_up(event: Event) -> None:
    """The endpoint cannot be reached; the recipient may still poll, and counts as missing if it does not."""
    # Newer ones have an event of their own, which tries for itself.
    for notification in _pending(event).filter(number__lte=event.payload["number"]):
        _note(notification, Push.UNREACHABLE)


@handles(PUSH_DUE, give_up=give_up)
def push_pending(event: Event) -> None:
    """Send what the recipient has not been sent, in order; Unavailable if its endpoint does not answer."""
    for notification in _pending(event).select_related("recipient"):
        _push(notification)


def _pending(event: Event) -> QuerySet[Notification]:
    return Notification.objects.filter(recipient=event.subject, push=Push.PENDING).order_by("number")


def _push(notification: Notification) -> None:
    endpoint = notification.recipient.message_endpoint
    try:
        outcome = Push.ACCEPTED if _post(endpoint, notification) else Push.REJECTED
    except NotAllowed as error:
        logger.warning("%s", error)
        outcome = Push.FORBIDDEN
    _note(notification, outcome)


@transaction.atomic
def _note(notification: Notification, outcome: Push) -> None:
    noted = Notification.objects.filter(pk=notification.pk, push=Push.PENDING).update(push=outcome)
    if noted and outcome in _TOLD:
        facts = {"recipient": str(notification.recipient_id), "type": notification.type, "round": notification.round}
        record(notification.training_id, _TOLD[outcome], facts)


def _post(endpoint: str, notification: Notification) -> bool:
    """Send one notification; return whether it was accepted, with any 2xx. No redirect is followed."""
    parts = urlsplit(endpoint)
    address = address_to_reach(endpoint)
    netloc = f"[{address}]" if ":" in address else address
    if parts.port:
        netloc += f":{parts.port}"
    host = parts.netloc.rpartition("@")[2]
    message = {
        "notification_type": notification.type,
        "training_uuid": str(notification.training_id),
        "body": notification.body,
    }
    try:
        with _http().stream(
            "POST",
            urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, "")),
            json=message,
            headers={"Host": host},
            extensions={"sni_hostname": parts.hostname or ""},
        ) as response:
            # The body is not read: nothing in it matters, and it may be without end.
            return response.is_success
    except httpx2.HTTPError as error:
        raise Unavailable(f"{endpoint} does not answer: {error}") from error


@cache
def _http() -> httpx2.Client:
    # trust_env off: a proxy named in the environment would resolve the host again, past the policy.
    return httpx2.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=False)
