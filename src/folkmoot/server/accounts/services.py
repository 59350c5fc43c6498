"""Making users and tokens."""

from __future__ import annotations

import secrets
from datetime import datetime

from django.contrib.auth.hashers import make_password
from django.db import IntegrityError, transaction

from folkmoot.errors import InvalidValue
from folkmoot.server.accounts.models import Token, User


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
) -> tuple[User, str]:
    """Make a user with a first token; return both, the token in plain for this one time.

    Without a password only tokens sign in. Raises InvalidValue where the name is taken, if only this very moment.
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
    )
    try:
        with transaction.atomic():
            user.save()
            _, plain = issue_token(user, name="first")
    except IntegrityError as error:
        raise InvalidValue("A user with that username already exists.") from error
    return user, plain


def issue_token(user: User, *, name: str = "", expires_at: datetime | None = None) -> tuple[Token, str]:
    """Make a token; return it with its 40 hex digits, which are not kept."""
    plain = secrets.token_hex(20)
    token = Token.objects.create(
        user=user, name=name, prefix=plain[:8], digest=Token.digest_of(plain), expires_at=expires_at
    )
    return token, plain
