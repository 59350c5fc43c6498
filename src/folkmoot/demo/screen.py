"""What the demo shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from folkmoot.demo.progress import Progress, Scores

LATELY = 5
"""How many rounds' accuracies there is room for."""


class Screen(Protocol):
    """Where the progress of a training is shown, within a `with` block."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def show(self, progress: Progress) -> None: ...


class LiveTable:
    """One row for each participant and one for all, redrawn in place."""

    def __init__(self) -> None:
        self._live = Live(console=Console(), auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, progress: Progress) -> None:
        self._live.update(table(progress), refresh=True)


class PlainLines:
    """A line on standard error for each round that is over."""

    def __init__(self) -> None:
        self._shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def show(self, progress: Progress) -> None:
        while self._shown < len(progress.held_out):
            accuracy = progress.held_out[self._shown]
            self._shown += 1
            sys.stderr.write(f"round {self._shown} of {progress.rounds}: accuracy on held-out digits {accuracy:.3f}\n")
            sys.stderr.flush()


def table(progress: Progress) -> Table:
    held_out = " ".join(f"{accuracy:.3f}" for accuracy in progress.held_out[-LATELY:]) or "-"
    drawn = Table(
        title=f"Round {progress.round} of {progress.rounds}",
        caption=f"On held-out digits: {held_out}",
    )
    for heading in ("participant", "digits", "this round", "loss", "accuracy"):
        drawn.add_column(heading, justify="left" if heading == "this round" else "right")
    for row in progress.rows:
        standing = "[green]answered" if row.has_answered else "[yellow]awaited"
        drawn.add_row(str(row.number), str(row.num_examples), standing, *_cells(row.scores))
    drawn.add_section()
    total = sum(row.num_examples for row in progress.rows)
    drawn.add_row("weighted", str(total), "", *_cells(progress.weighted))
    return drawn


def _cells(scores: Scores | None) -> tuple[str, str]:
    return (f"{scores.loss:.3f}", f"{scores.accuracy:.3f}") if scores else ("-", "-")
