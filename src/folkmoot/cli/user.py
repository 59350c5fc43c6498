"""`folkmoot user`: accounts, made by whoever runs the server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from folkmoot.cli.extras import needs
from folkmoot.cli.serve import DEFAULT_DATA_DIR, DataDir
from folkmoot.errors import Misconfigured

users = typer.Typer(no_args_is_help=True, help="Make accounts on this server.")


@users.callback()
def user() -> None:
    """Make accounts on this server."""


@users.command()
def add(
    name: Annotated[str, typer.Argument(help="The user's name.")],
    actor: Annotated[bool, typer.Option("--actor", help="Describe the user as one who creates trainings.")] = False,
    staff: Annotated[bool, typer.Option("--staff", help="Let the user see everything.")] = False,
    superuser: Annotated[
        bool, typer.Option("--superuser", help="Staff that may do everything in the admin, too.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make a user that signs in by token, and print the token, this one time."""
    _prepare(data_dir)

    from django.core.exceptions import ValidationError

    from folkmoot.server.accounts.models import User
    from folkmoot.server.accounts.services import register

    try:
        User(username=name).clean_fields(exclude=["password"])
    except ValidationError as error:
        raise Misconfigured(f"{name!r} is no user name: {' '.join(error.messages)}") from error
    if User.objects.filter(username=name).exists():
        raise Misconfigured(f"there is a user {name!r} already")
    _, token = register(username=name, password=None, actor=actor, is_staff=staff or superuser, is_superuser=superuser)
    typer.echo(token)


@users.command()
def invite(
    days: Annotated[int, typer.Option(help="For how many days it is good.", min=1, max=365)] = 7,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print an invitation, with which one user may register where FOLKMOOT_REGISTRATION is `invite`."""
    _prepare(data_dir)

    from folkmoot.server.accounts import services

    typer.echo(services.invite(days=days))


@users.command()
def password(
    name: Annotated[str, typer.Argument(help="The user's name.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Set a user's password, for signing in with a browser; it is asked for, or read from a pipe."""
    _prepare(data_dir)

    from folkmoot.server.accounts.models import User
    from folkmoot.server.accounts.services import set_password

    user = User.objects.filter(username=name).first()
    if user is None:
        raise Misconfigured(f"there is no user {name!r}")
    set_password(user, _new_password())


def _new_password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("New password", hide_input=True, confirmation_prompt=True))
    given = sys.stdin.readline().rstrip("\n")
    if not given:
        raise Misconfigured("a password cannot be empty")
    return given


def _prepare(data_dir: Path) -> None:
    with needs("server"):
        from folkmoot.server.process import prepare
    prepare(data_dir.expanduser().absolute())
