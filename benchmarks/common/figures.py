"""How a benchmark says what it has measured."""

# ruff: noqa: T201 (printing is what it is for)

from __future__ import annotations

DECIMALS = {"s": 3, "ms": 1, "": 2}


def show(name: str, figure: float, unit: str, *, target: float | None = None, at_least: bool = False) -> None:
    """A line with the figure and, where there is a target, whether it is met; `unit` may be a ratio's, empty."""
    compared = ""
    if target is not None:
        met = figure >= target if at_least else figure < target
        word = "at least" if at_least else "under"
        compared = f"   target: {word} {target:,g}, {'met' if met else 'MISSED'}"
    print(f"{name:<54} {figure:>9,.{DECIMALS.get(unit, 0)}f} {unit:<2}{compared}".rstrip(), flush=True)
