"""Writing notifications, and what of them is still open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q

from folkmoot.protocol.notifications import NotificationType
from folkmoot.server.accounts.models import User
from folkmoot.server.notifications.models import Notification, Push
from folkmoot.server.notifications.relay import wake_on_commit
from folkmoot.server.outbox.events import record
from folkmoot.server.outbox.models import Lane

PUSH_DUE = "push_due"
MOST = 1000
"""Notifications in one answer."""
FEW = 100
"""Of a user who is no further behind, all are read together with those of others."""


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
    have_it = said.filter(recipient__in=wanted).order_by().values_list("recipient_id", flat=True)
    if wanted <= set(have_it):
        return
    found = lock_recipients(wanted)
    # Asked anew: another may have delivered it until they were locked.
    known = set(have_it.all())
    new = [_notification(message, *user) for user in found if user[0] not in known]
    told = [each.recipient_id for each in new]
    User.objects.filter(pk__in=told).update(last_notification=F("last_notification") + 1)
    Notification.objects.bulk_create(new, batch_size=500)
    for each in new:
        if each.push == Push.PENDING:
            record(each.recipient_id, PUSH_DUE, {"number": each.number}, lane=Lane.PUSHES)
    wake_on_commit(told)


def lock_recipients(recipients: Iterable[UUID]) -> list[tuple[UUID, int, str]]:
    """Give id, last notification and endpoint of each, and keep other transactions from writing to them.

    A transaction that delivers to several in several messages locks them all before the first.
    """
    # In the order of the keys, as whoever locks several must; no_key, so that rows which refer to a user come in still.
    users = User.objects.select_for_update(no_key=True).filter(pk__in=list(recipients)).order_by("pk")
    return list(users.values_list("pk", "last_notification", "message_endpoint"))


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


@dataclass(frozen=True)
class Poll:
    """A user asks for what comes after notification `after`, or for all that still asks for work.

    `last` is the number of the user's newest, as it was read before the notifications are: what is written in between
    is in the next answer. An `after` that was never given out (by a server that has since been restored, say) counts as
    none.
    """

    user_id: UUID
    last: int
    after: int | None

    @property
    def is_up_to_date(self) -> bool:
        return self.after == self.last

    @property
    def wanted(self) -> Q:
        if self.after is None or self.after > self.last:
            return Q(recipient=self.user_id, settled=False)
        return Q(recipient=self.user_id, number__gt=self.after)

    @property
    def may_be_many(self) -> bool:
        return self.after is None or self.last - self.after not in range(FEW)


def waiting_for(user: User, *, after: int | None) -> tuple[list[Notification], int]:
    """What there is for the user after this, oldest first, and what to ask after next time."""
    return waiting_for_all([Poll(user.pk, user.last_notification, after)])[0]


def waiting_for_all(polls: Sequence[Poll]) -> list[tuple[list[Notification], int]]:
    """The same for many at once, in their order; a user may be among them several times."""
    few = [poll for poll in polls if not poll.is_up_to_date and not poll.may_be_many]
    of_user: defaultdict[UUID, list[Notification]] = defaultdict(list)
    if few:
        for each in Notification.objects.filter(Q(*(poll.wanted for poll in few), _connector=Q.OR)).order_by("number"):
            of_user[each.recipient_id].append(each)
    return [_found(poll, of_user[poll.user_id]) for poll in polls]


def _found(poll: Poll, of_user: Iterable[Notification]) -> tuple[list[Notification], int]:
    if poll.is_up_to_date:
        return [], poll.last
    if poll.may_be_many:
        notifications = list(Notification.objects.filter(poll.wanted).order_by("number")[:MOST])
    else:
        notifications = [each for each in of_user if each.number > (poll.after or 0)]
    _note_polled(notifications)
    newest = notifications[-1].number if len(notifications) == MOST else poll.last
    return notifications, max([newest, *(each.number for each in notifications)])


def _note_polled(notifications: Iterable[Notification]) -> None:
    """Who asks is there, whatever becomes of the pushes to its endpoint."""
    in_doubt = (Push.PENDING, Push.UNREACHABLE)
    news = [each.pk for each in notifications if each.push in in_doubt and not each.polled]
    if news:
        Notification.objects.filter(pk__in=news).update(polled=True)


def _notification(message: Message, user_id: UUID, last: int, endpoint: str) -> Notification:
    return Notification(
        recipient_id=user_id,
        number=last + 1,
        type=message.type,
        training_id=message.training_id,
        round=message.round,
        attempt=message.attempt,
        body=message.body,
        settled=not message.type.asks_for_work,
        push=Push.PENDING if endpoint else Push.NONE,
    )
