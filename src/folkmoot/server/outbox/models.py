"""Events: history and outbox in one row."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Q
from django.utils import timezone

from folkmoot.server import clock


class Lane(models.TextChoices):
    """Events of one lane never wait for those of another: an endpoint or a model that hangs holds up no aggregation."""

    TRAININGS = "trainings"
    PUSHES = "pushes"
    MODELS = "models"


class EventQuerySet(models.QuerySet["Event"]):
    def unhandled(self) -> EventQuerySet:
        return self.filter(handled_at=None)

    def free(self, now: datetime) -> EventQuerySet:
        """Due, and in nobody's hands."""
        return self.unhandled().filter(Q(leased_until=None) | Q(leased_until__lte=now), due_at__lte=now)


class Event(models.Model):
    """Something that happened to `subject` (a training, or the recipient of pushes)."""

    id = models.BigAutoField(primary_key=True)
    subject = models.UUIDField()
    lane = models.CharField(max_length=20, choices=Lane.choices, default=Lane.TRAININGS)
    kind = models.CharField(max_length=50)
    payload = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)
    due_at = models.DateTimeField(default=clock.now)
    leased_until = models.DateTimeField(null=True)
    # How often it was claimed; by this number those who were overtaken are known (see leases.py).
    attempts = models.PositiveIntegerField(default=0)
    # How often its handler has failed, and how often in a row whoever had claimed it ended without a word.
    failures = models.PositiveIntegerField(default=0, db_default=0)
    interruptions = models.PositiveIntegerField(default=0, db_default=0)
    # Since when it could not be handled for lack of storage.
    waits_since = models.DateTimeField(null=True)
    handled_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True, default="")
    # Of the request that it came of, if of one.
    request_id = models.CharField(max_length=64, blank=True, default="", db_default="")

    objects = EventQuerySet.as_manager()

    class Meta:
        ordering = ("id",)
        indexes = (
            models.Index(fields=["lane", "id"], name="event_unhandled", condition=Q(handled_at=None)),
            models.Index(fields=["subject", "id"], name="event_subject"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"
