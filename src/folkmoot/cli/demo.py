"""`folkmoot demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from folkmoot.cli.extras import needs

if TYPE_CHECKING:
    from folkmoot.demo.run import Finished, Options


def demo(
    participants: Annotated[int, typer.Option(help="How many take part, each as a process of its own.")] = 3,
    rounds: Annotated[int, typer.Option(help="How many rounds they train together.")] = 5,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The server's port; 0 for any free one.")] = 0,
    data_dir: Annotated[Path | None, typer.Option(help="Keep the server's data here; else it is removed.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Go on serving until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON, in the last line.")] = False,
) -> None:
    """Run a whole federated training on this machine: a server, participants, real handwritten digits."""
    try:
        with needs("demo"):
            from folkmoot.demo.run import Options

            _run(Options(participants, rounds, port, data_dir), keep=keep, json=json)
    except KeyboardInterrupt as interrupt:
        typer.echo("folkmoot: stopped", err=True)
        raise typer.Exit(getattr(interrupt, "exit_code", 130)) from None


def _run(options: Options, *, keep: bool, json: bool) -> None:
    from folkmoot.demo.children import ChildEnded
    from folkmoot.demo.run import demo
    from folkmoot.demo.screen import LiveTable, PlainLines
    from folkmoot.protocol.paths import API_DOCS

    screen = LiveTable() if sys.stdout.isatty() and not json else PlainLines()
    try:
        with demo(options, screen) as finished:
            for line in (finished.outcome.comparison(), finished.outcome.durations()):
                typer.echo(line, err=json)
            still = "" if keep else " (for as long as it serves: see --keep)"
            typer.echo(f"The API and its documentation: {finished.url}{API_DOCS}{still}", err=json)
            if json:
                typer.echo(finished.outcome.as_json())
            if keep:
                _keep_serving(finished)
    except ChildEnded as error:
        typer.echo(error.last_words, err=True)
        raise


def _keep_serving(finished: Finished) -> None:
    from folkmoot.demo.interrupts import Interrupted

    actor = finished.actor
    typer.echo(
        f"Still serving at {finished.url}; sign in as {actor.name} with {actor.password}. Ctrl-C ends it.", err=True
    )
    try:
        finished.keep_serving()
    except Interrupted:
        typer.echo("folkmoot: stopped", err=True)
