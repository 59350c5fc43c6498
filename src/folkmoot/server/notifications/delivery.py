"""Writing notifications, and what of them is still open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import transaction

from folkmoot.protocol.notifications import NotificationType
from folkmoot.server.accounts.models import User
from folkmoot.server.notifications.models import Notification, Push
from folkmoot.server.notifications.wakeups import wakeups
from folkmoot.server.outbox.events import record
from folkmoot.server.outbox.models import Lane

PUSH_DUE = "push_due"


@dataclass(frozen=True)
class Message:
    """What is said to every recipient alike; said once for each (training, type, round, attempt)."""

    type: NotificationType
    training_id: UUID
    body: dict[str, Any] = field(default_factory=dict)
    round: int = 0
    attempt: int = 1


@transaction.atomic
def deliver(message: Message, recipients: Iterable[UUID]) -> None:
    """Write the message for all who do not have it yet; on commit wake their polls and push to their endpoints."""
    said = Notification.objects.about(message.training_id, message.type, message.round).filter(attempt=message.attempt)
    wanted = set(recipients)
    if wanted <= set(said.filter(recipient__in=wanted).values_list("recipient_id", flat=True)):
        return
    # In the order of the keys, as whoever locks several must; no_key, so that rows which refer to a user come in still.
    users = list(User.objects.select_for_update(no_key=True).filter(pk__in=wanted).order_by("pk"))
    have_it = set(said.filter(recipient__in=wanted).values_list("recipient_id", flat=True))
    new = [user for user in users if user.pk not in have_it]
    for user in new:
        user.last_notification += 1
    User.objects.bulk_update(new, ["last_notification"], batch_size=500)
    Notification.objects.bulk_create([_notification(message, user) for user in new], batch_size=500)
    for user in new:
        if user.message_endpoint:
            record(user.pk, PUSH_DUE, {"number": user.last_notification}, lane=Lane.PUSHES)
    transaction.on_commit(lambda: wakeups.wake(user.pk for user in new))


def settle(training_id: UUID, type: NotificationType, round: int, *, recipient: User | None = None) -> None:  # noqa: A002
    """Nothing is awaited any more for this: of one recipient, or of all."""
    settled = Notification.objects.about(training_id, type, round)
    if recipient is not None:
        settled = settled.filter(recipient=recipient)
    settled.update(settled=True)


def settle_training(training_id: UUID, *, recipient: User | None = None) -> None:
    """Nothing is awaited any more in this training: of one recipient, or of all."""
    settled = Notification.objects.filter(training_id=training_id, settled=False)
    if recipient is not None:
        settled = settled.filter(recipient=recipient)
    settled.update(settled=True)


def waiting_for(user: User, *, after: int | None) -> tuple[list[Notification], int]:
    """What comes after notification `after`, or all that still asks for work; and what to ask after next time.

    An `after` that was never given out (by a server that has since been restored, say) counts as none.
    """
    # Of the user as this request found it, so before the notifications: what is written in between is in the next poll.
    last = user.last_notification
    if after == last:
        return [], last
    mine = Notification.objects.filter(recipient=user)
    found = mine.open() if after is None or after > last else mine.filter(number__gt=after)
    notifications = list(found.order_by("number")[:1000])
    _note_polled(notifications)
    newest = notifications[-1].number if len(notifications) == 1000 else last
    return notifications, max([newest, *(notification.number for notification in notifications)])


def _note_polled(notifications: Iterable[Notification]) -> None:
    """Who asks is there, whatever becomes of the pushes to its endpoint."""
    in_doubt = (Push.PENDING, Push.UNREACHABLE)
    news = [each.pk for each in notifications if each.push in in_doubt and not each.polled]
    if news:
        Notification.objects.filter(pk__in=news).update(polled=True)


def _notification(message: Message, user: User) -> Notification:
    return Notification(
        recipient=user,
        number=user.last_notification,
        type=message.type,
        training_id=message.training_id,
        round=message.round,
        attempt=message.attempt,
        body=message.body,
        settled=not message.type.asks_for_work,
        push=Push.PENDING if user.message_endpoint else Push.NONE,
    )
