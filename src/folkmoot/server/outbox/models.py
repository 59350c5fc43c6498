"""Events: history and outbox in one row."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone


class Lane(models.TextChoices):
    """Events of one lane never wait for those of another: an endpoint that hangs holds up no aggregation."""

    TRAININGS = "trainings"
    PUSHES = "pushes"


class EventQuerySet(models.QuerySet["Event"]):
    def unhandled(self) -> EventQuerySet:
        return self.filter(handled_at=None)

    def claimable(self, lane: Lane, now: datetime) -> EventQuerySet:
        """Due and not leased, the oldest first; events of one subject are handled one after another."""
        earlier = Event.objects.unhandled().filter(subject=OuterRef("subject"), lane=lane, id__lt=OuterRef("id"))
        return (
            self.unhandled()
            .filter(lane=lane, due_at__lte=now)
            .exclude(leased_until__gt=now)
            .filter(~Exists(earlier))
            .order_by("id")
        )


class Event(models.Model):
    """Something that happened to `subject` (a training, or the recipient of pushes)."""

    id = models.BigAutoField(primary_key=True)
    subject = models.UUIDField()
    lane = models.CharField(max_length=20, choices=Lane.choices, default=Lane.TRAININGS)
    kind = models.CharField(max_length=50)
    payload = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)
    due_at = models.DateTimeField(default=timezone.now)
    leased_until = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    handled_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True, default="")

    objects = EventQuerySet.as_manager()

    class Meta:
        ordering = ("id",)
        indexes = (
            models.Index(fields=["lane", "id"], name="event_unhandled", condition=Q(handled_at=None)),
            models.Index(fields=["subject", "id"], name="event_subject"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"
