"""Signing in with a password: slow by design once, quick for the minute after."""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable
from uuid import UUID

from django.contrib.auth.hashers import make_password
from django.utils.crypto import salted_hmac

from folkmoot.server.accounts.models import User

SECONDS = 60
MOST_USERS = 10_000


class VerifiedPasswords:
    """Which password each user has last signed in with, as a keyed hash, in this process's memory alone.

    The hash covers the stored password, so that a changed one counts at once. Only success is remembered.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, most_users: int = MOST_USERS) -> None:
        self._clock = clock
        self._most_users = most_users
        self._lock = threading.Lock()
        self._known: dict[UUID, tuple[bytes, float]] = {}

    def has(self, user: User, password: str) -> bool:
        with self._lock:
            digest, until = self._known.get(user.pk, (b"", 0.0))
        return hmac.compare_digest(digest, _digest(user, password)) and self._clock() < until

    def add(self, user: User, password: str) -> None:
        with self._lock:
            self._known.pop(user.pk, None)
            # The one who has signed in the longest ago comes first.
            while len(self._known) >= self._most_users:
                del self._known[next(iter(self._known))]
            self._known[user.pk] = (_digest(user, password), self._clock() + SECONDS)

    def clear(self) -> None:
        with self._lock:
            self._known.clear()


verified_passwords = VerifiedPasswords()


def user_with_password(username: str, password: str) -> User | None:
    """The user who may sign in so, with one query; None for everyone else, after as much work whoever they are."""
    # PostgreSQL takes no NUL, not even to look for it.
    user = None if "\0" in username else User.objects.filter(username=username).first()
    if user is None:
        make_password(password)
        return None
    if not verified_passwords.has(user, password):
        if not user.check_password(password):
            return None
        verified_passwords.add(user, password)
    return user if user.is_active else None


def _digest(user: User, password: str) -> bytes:
    # Lengths before texts: no two triples are written alike.
    parts = "".join(f"{len(part)}:{part}" for part in (str(user.pk), user.password, password))
    return salted_hmac("folkmoot.verified_passwords", parts, algorithm="sha256").digest()
