"""Making users, invitations, tokens and groups; setting passwords."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group
from django.db import IntegrityError, transaction
from django.utils import timezone

from folkmoot.errors import InvalidValue, NotAllowed
from folkmoot.server.accounts.models import GroupCreation, Invitation, Token, User

NOT_INVITED = "Registration on this server takes an invitation of its operator, which is good for one user."
NAME_TAKEN = "A group with that name already exists."


def register(
    *,
    username: str,
    password: str | None,
    first_name: str = "",
    last_name: str = "",
    email: str = "",
    actor: bool = False,
    client: bool = True,
    message_endpoint: str = "",
    is_staff: bool = False,
    is_superuser: bool = False,
    invitation: str | None = None,
) -> tuple[User, str]:
    """Make a user with a first token; return both, the token in plain for this one time.

    Without a password only tokens sign in. An invitation is spent by this. Raises InvalidValue where the name is
    taken, if only this very moment, and NotAllowed where the invitation is no longer valid.
    """
    user = User(
        username=User.normalize_username(username),
        email=User.objects.normalize_email(email),
        # Slow by design, hence before the transaction: on SQLite nobody else can write during one.
        password=make_password(password),
        first_name=first_name,
        last_name=last_name,
        actor=actor,
        client=client,
        message_endpoint=message_endpoint,
        is_staff=is_staff,
        is_superuser=is_superuser,
    )
    with _unique("A user with that username already exists."):
        if invitation is not None:
            _spend(invitation)
        user.save()
        _, plain = issue_token(user, name="first")
    return user, plain


def invite(*, days: int) -> str:
    """Let one user register within so many days; return the 40 hex digits that it has to tell, which are not kept."""
    plain = secrets.token_hex(20)
    expires_at = timezone.now() + timedelta(days=days)
    Invitation.objects.create(digest=Token.digest_of(plain), expires_at=expires_at)
    return plain


def set_password(user: User, password: str | None) -> None:
    """Let this password sign in from now on, and no other; without one only tokens do."""
    user.set_password(password)
    user.save(update_fields=["password"])


def issue_token(user: User, *, name: str = "", expires_at: datetime | None = None) -> tuple[Token, str]:
    """Make a token; return it with its 40 hex digits, which are not kept."""
    plain = secrets.token_hex(20)
    token = Token.objects.create(
        user=user, name=name, prefix=plain[:8], digest=Token.digest_of(plain), expires_at=expires_at
    )
    return token, plain


def create_group(name: str, *, creator: User) -> Group:
    """Make a group with its creator as the first member. Raises InvalidValue where the name is taken."""
    with _unique(NAME_TAKEN):
        group = Group.objects.create(name=name)
        GroupCreation.objects.create(group=group, creator=creator)
        group.user_set.add(creator)
    return group


def rename_group(group: Group, name: str) -> Group:
    """Raises InvalidValue where the name is taken."""
    group.name = name
    with _unique(NAME_TAKEN):
        group.save(update_fields=["name"])
    return group


def add_members(group: Group, users: Iterable[User]) -> None:
    group.user_set.add(*users)


def remove_members(group: Group, users: Iterable[User]) -> None:
    """Also of users who are no members."""
    group.user_set.remove(*users)


def _spend(invitation: str) -> None:
    # Of two who come with it at once, the one whose DELETE finds the row has it.
    spent, _ = Invitation.objects.valid(invitation).delete()
    if not spent:
        raise NotAllowed(NOT_INVITED)


@contextmanager
def _unique(complaint: str) -> Iterator[None]:
    """One transaction; a name that somebody else has taken this very moment is the caller's mistake like any other."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        raise InvalidValue(complaint) from error
