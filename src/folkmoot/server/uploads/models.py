"""Uploads that are under way, and for a while those that are over."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import models
from django.utils import timezone

from folkmoot.server import clock
from folkmoot.server.accounts.models import User
from folkmoot.server.storage import get_storage


class UploadQuerySet(models.QuerySet["Upload"]):
    def of(self, user: User) -> UploadQuerySet:
        return self.filter(owner=user)

    def unfinished(self) -> UploadQuerySet:
        return self.filter(answer__isnull=True)

    def expired(self, now: datetime) -> UploadQuerySet:
        """Those that nothing came for in a long time, and those whose answer nobody will ask for again."""
        return self.filter(touched_at__lte=now - timedelta(seconds=settings.UPLOAD_EXPIRY_SECONDS))


class Upload(models.Model):
    """A file that comes in chunks. Its first `offset` bytes are on the disk; whatever the file has more does not count.

    The file is made before the row and removed after it, so that a row without one has lost it.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="uploads")
    # What the file is for, in the words of the API; nothing here looks into either.
    target = models.CharField(max_length=200)
    fields = models.JSONField(default=dict)
    size = models.PositiveBigIntegerField()
    # As it was announced; empty if it was not.
    sha256 = models.CharField(max_length=64, blank=True, default="")
    offset = models.PositiveBigIntegerField(default=0)
    # What the commit was answered with; NULL before.
    answer = models.JSONField(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    touched_at = models.DateTimeField(default=clock.now)

    objects = UploadQuerySet.as_manager()

    class Meta:
        ordering = ("created_at", "id")
        indexes = (models.Index(fields=["touched_at"], name="upload_touched"),)

    def __str__(self) -> str:
        return f"upload {self.id} for {self.target}"

    @property
    def path(self) -> Path:
        """Where its bytes are until it is committed."""
        return get_storage().partial(self.id.hex)

    @property
    def expires_at(self) -> datetime:
        return self.touched_at + timedelta(seconds=settings.UPLOAD_EXPIRY_SECONDS)
