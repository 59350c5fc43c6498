"""`folkmoot worker` and `folkmoot beat`, the processes beside `folkmoot serve` where a broker is set."""

from __future__ import annotations

from typing import Annotated

import typer

from folkmoot.cli.extras import needs
from folkmoot.cli.serve import DEFAULT_DATA_DIR, DataDir


def worker(
    lanes: Annotated[
        str, typer.Option(help="Which to work for: trainings, pushes, models, separated by commas; all by default.")
    ] = "",
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=256, help="How many events of each lane at once; 1, of pushes 4.")
    ] = None,
    beat: Annotated[bool, typer.Option("--beat", help="Do the work of folkmoot beat, too.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Handle a hub's events, as many such processes as one likes. On SIGTERM or Ctrl-C it finishes what it is at."""
    with needs("server"):
        from folkmoot.server import crew

    chosen = [lane.strip() for lane in lanes.split(",") if lane.strip()]
    crew.work(
        data_dir.expanduser().absolute(),
        chosen,
        concurrency=concurrency,
        with_beat=beat,
        on_ready=lambda broker: typer.echo(f"Folkmoot is working for {broker}"),
    )


def beat(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Look for what is overdue in a hub and have its workers handle it; a second one does no harm."""
    with needs("server"):
        from folkmoot.server import crew

    crew.beat(
        data_dir.expanduser().absolute(), on_ready=lambda broker: typer.echo(f"Folkmoot is keeping time for {broker}")
    )
