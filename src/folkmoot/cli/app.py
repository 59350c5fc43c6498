"""The commands and how they are found."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

from folkmoot.cli.backup import backup, restore
from folkmoot.cli.check import check
from folkmoot.cli.demo import demo
from folkmoot.cli.model import models
from folkmoot.cli.predict import predict
from folkmoot.cli.serve import serve
from folkmoot.cli.training import trainings
from folkmoot.cli.user import users
from folkmoot.cli.worker import beat, worker
from folkmoot.errors import Misconfigured

app = typer.Typer(
    name="folkmoot",
    help="Train one model together over plain HTTPS, without pooling data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(worker)
app.command()(beat)
app.command()(demo)
app.command()(check)
app.command()(predict)
app.command()(backup)
app.command()(restore)
app.add_typer(users, name="user")
app.add_typer(models, name="model")
app.add_typer(trainings, name="training")
COMMANDS = ("serve", "worker", "beat", "demo", "check", "predict", "backup", "restore", "user", "model", "training")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(importlib.metadata.version("folkmoot"))
        raise typer.Exit


@app.callback()
def folkmoot(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train one model together over plain HTTPS, without pooling data."""


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; a wrong argument is Misconfigured."""
    try:
        return int(app(arguments, standalone_mode=False) or 0)
    except typer.TyperException as error:
        if not arguments or error.exit_code != 2:
            typer.echo(error.format_message())
            return 2
        command = f" {arguments[0]}" if arguments[0] in COMMANDS else ""
        raise Misconfigured(f"{error.format_message()} See folkmoot{command} --help.") from error
    except typer.Abort:
        return 130
