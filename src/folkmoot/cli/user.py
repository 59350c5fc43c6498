"""`folkmoot user`: accounts, made by whoever runs the server."""

from __future__ import annotations

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
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make a user that signs in by token, and print the token, this one time."""
    with needs("server"):
        from folkmoot.server.process import prepare
    prepare(data_dir.expanduser().absolute())

    from django.core.exceptions import ValidationError

    from folkmoot.server.accounts.models import User
    from folkmoot.server.accounts.services import register

    try:
        User(username=name).clean_fields(exclude=["password"])
    except ValidationError as error:
        raise Misconfigured(f"{name!r} is no user name: {' '.join(error.messages)}") from error
    if User.objects.filter(username=name).exists():
        raise Misconfigured(f"there is a user {name!r} already")
    _, token = register(username=name, password=None, actor=actor, is_staff=staff)
    typer.echo(token)
