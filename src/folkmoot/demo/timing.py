"""How long the rounds took, and how much of that nobody trained: the share of the hub and its client."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from folkmoot.demo.participant import TRAINED, TRAINING

Interval = tuple[float, float]
"""Two moments, in seconds since 1970."""


@dataclass(frozen=True)
class Timing:
    """One round, in seconds; it lasts until the next one opens."""

    total: float
    idle: float


def timings(rounds: list[dict[str, Any]], outputs: Iterable[Path]) -> list[Timing]:
    """`rounds` as the hub tells of them, all of them closed; `outputs` are what the participants printed."""
    training = [interval for output in outputs for interval in _training_intervals(output)]
    opened = [_moment(round["opened_at"]) for round in rounds]
    windows = pairwise([*opened, _moment(rounds[-1]["closed_at"])])
    return [Timing(stop - start, idle_seconds((start, stop), training)) for start, stop in windows]


def idle_seconds(window: Interval, busy: Iterable[Interval]) -> float:
    """How much of `window` is in none of the intervals of `busy`, which may overlap."""
    reached, idle = window[0], 0.0
    for start, stop in sorted(busy):
        idle += max(0.0, min(start, window[1]) - reached)
        reached = max(reached, min(stop, window[1]))
    return idle + window[1] - reached


def said(output: Path) -> list[dict[str, Any]]:
    """What a participant has printed so far; a line that is still being written does not count."""
    return [json.loads(line) for line in output.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _training_intervals(output: Path) -> list[Interval]:
    words = said(output)
    begun = [word["at"] for word in words if word["event"] == TRAINING]
    ended = [word["at"] for word in words if word["event"] == TRAINED]
    return list(zip(begun, ended, strict=True))


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
