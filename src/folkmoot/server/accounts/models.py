"""Users, invitations, API tokens, and who created a group."""

from __future__ import annotations

import hashlib
import uuid

from django.contrib.auth.models import AbstractUser, Group
from django.db import models
from django.db.models import Q
from django.utils import timezone


class User(AbstractUser):
    """Anyone with an account. `actor` and `client` describe a user and gate nothing."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    actor = models.BooleanField(default=False)
    client = models.BooleanField(default=True)
    message_endpoint = models.TextField(blank=True, default="", max_length=2000)
    # The id of the newest notification; counted up while this row is locked, so that no smaller id appears later.
    last_notification = models.PositiveBigIntegerField(default=0, editable=False)


class TokenQuerySet(models.QuerySet["Token"]):
    def matching(self, plain: str) -> TokenQuerySet:
        """The one that these 40 hex digits are, with its user."""
        return self.filter(digest=Token.digest_of(plain)).select_related("user")

    def valid(self) -> TokenQuerySet:
        """Those that have not expired, of users who may sign in."""
        lasting = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
        return self.filter(lasting, user__is_active=True)


class Token(models.Model):
    """An API token: 20 random bytes, shown once as 40 hex digits, kept as their SHA-256. Deleting it revokes it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100, blank=True, default="")
    prefix = models.CharField(max_length=8, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)

    objects = TokenQuerySet.as_manager()

    class Meta:
        ordering = ("created_at",)

    def __str__(self) -> str:
        return f"{self.prefix}... of {self.user_id}"

    @property
    def is_valid(self) -> bool:
        """Whether it is one of `valid()`, of which each request would have the database think anew."""
        is_lasting = self.expires_at is None or self.expires_at > timezone.now()
        return is_lasting and self.user.is_active

    @staticmethod
    def digest_of(plain: str) -> str:
        # No salt and no slow hash: 160 random bits cannot be guessed, and every request pays for this.
        return hashlib.sha256(plain.encode()).hexdigest()


class InvitationQuerySet(models.QuerySet["Invitation"]):
    def valid(self, plain: str) -> InvitationQuerySet:
        """The invitation that these 40 hex digits are, if it still is one."""
        return self.filter(digest=Token.digest_of(plain), expires_at__gt=timezone.now())


class Invitation(models.Model):
    """Lets one user register: kept as the SHA-256 of its 40 hex digits, and gone once that is done."""

    digest = models.CharField(max_length=64, primary_key=True, editable=False)
    expires_at = models.DateTimeField()

    objects = InvitationQuerySet.as_manager()

    def __str__(self) -> str:
        return f"invitation until {self.expires_at}"


class GroupCreation(models.Model):
    """Who created a group, and may change it: Django's own groups do not know. One without a row is the staff's."""

    group = models.OneToOneField(Group, on_delete=models.CASCADE, primary_key=True, related_name="creation")
    creator = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")

    def __str__(self) -> str:
        return f"{self.group_id} by {self.creator_id}"
