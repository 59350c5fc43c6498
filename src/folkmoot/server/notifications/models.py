"""Notifications: a message to one participant."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from folkmoot.protocol.notifications import NotificationType


class Push(models.TextChoices):
    """What became of pushing it to the recipient's endpoint."""

    NONE = "none"
    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNREACHABLE = "unreachable"
    FORBIDDEN = "forbidden"


class NotificationQuerySet(models.QuerySet["Notification"]):
    def open(self) -> NotificationQuerySet:
        """Those that still ask for work."""
        return self.filter(settled=False)

    def lost(self) -> NotificationQuerySet:
        """Those that their recipient has not got: its endpoint cannot be reached, and it has not asked either."""
        return self.filter(push=Push.UNREACHABLE, polled=False)

    def about(self, training_id: object, type: NotificationType, round: int) -> NotificationQuerySet:  # noqa: A002
        return self.filter(training_id=training_id, type=type, round=round)


class Presence(models.Model):
    """When a user last asked for work or sent some, to within half a minute, and with which version of the client."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="presence"
    )
    seen_at = models.DateTimeField()
    client_version = models.CharField(max_length=40, blank=True, default="")

    def __str__(self) -> str:
        return f"{self.user_id} at {self.seen_at}"


class Notification(models.Model):
    """`number` is its id on the wire: it grows per recipient, without a smaller one ever appearing later."""

    recipient = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notifications")
    number = models.PositiveBigIntegerField()
    type = models.CharField(max_length=30, choices=[(member.value, member.value) for member in NotificationType])
    training_id = models.UUIDField()
    round = models.PositiveIntegerField(default=0)
    attempt = models.PositiveIntegerField(default=1)
    body = models.JSONField()
    created_at = models.DateTimeField(default=timezone.now)
    settled = models.BooleanField(default=False)
    push = models.CharField(max_length=20, choices=Push.choices, default=Push.NONE)
    # Whether its recipient has asked for it; only noted while its push is pending, or was in vain.
    polled = models.BooleanField(default=False)

    objects = NotificationQuerySet.as_manager()

    class Meta:
        ordering = ("number",)
        constraints = (
            models.UniqueConstraint(fields=["recipient", "number"], name="notification_number"),
            # A handler that runs twice says nothing twice.
            models.UniqueConstraint(
                fields=["recipient", "training_id", "type", "round", "attempt"], name="notification_once"
            ),
        )
        indexes = (
            models.Index(fields=["recipient", "number"], name="notification_open", condition=Q(settled=False)),
            models.Index(fields=["training_id", "type", "round"], name="notification_about"),
        )

    def __str__(self) -> str:
        return f"{self.type} {self.number} to {self.recipient_id}"
