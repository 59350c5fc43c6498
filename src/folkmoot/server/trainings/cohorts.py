"""Which of a training's participants a round asks: all, or as many as `options.selection` says, drawn by its seed.

Each participant has a rank in each round: the SHA-256 of "<seed> <round> <user id>", the id in its usual form with
hyphens. The lowest ranks are asked. So the draw needs no state and no generator, any machine gets the same, and who
joins or leaves moves nobody else by more than one place: rendezvous hashing, Thaler & Ravishankar 1998,
https://doi.org/10.1109/90.663936
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any
from uuid import UUID

from folkmoot.aggregation import Strategy
from folkmoot.errors import InvalidValue
from folkmoot.server.trainings.options import Options

MAX_SEED = 2**53 - 1
"""The largest whole number that every reader of JSON gets right."""


@dataclass(frozen=True)
class Cohort:
    """Those who are asked; `goal` is how many updates end the round where more are asked than that, else None."""

    members: list[UUID]
    goal: int | None = None


def draw(participants: Iterable[UUID], options: Options, *, round: int, at_least: int) -> Cohort:
    """The cohort of the round, of at least `at_least` where there are so many; the order of participants is no matter.

    A fraction is rounded up, and `extra` more are asked than are needed: Bonawitz et al. 2019, section 2.2,
    https://arxiv.org/abs/1902.01046
    """
    everybody = list(participants)
    selection = options.selection
    if not selection:
        return Cohort(everybody)
    wanted = _wanted(selection, len(everybody), at_least)
    ranked = sorted(everybody, key=lambda each: _rank(selection["seed"], round, each))
    members = ranked[: wanted + selection.get("extra", 0)]
    return Cohort(members, goal=wanted if wanted < len(members) else None)


def _wanted(selection: Mapping[str, Any], of: int, at_least: int) -> int:
    if "count" in selection:
        return min(int(selection["count"]), of)
    # Of the decimal as it was written: as floats, a tenth of 30 is more than 3.
    return min(max(ceil(Fraction(str(selection["fraction"])) * of), at_least), of)


def _rank(seed: int, round: int, user: UUID) -> bytes:
    return hashlib.sha256(f"{seed} {round} {user}".encode()).digest()


def with_seed(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with a seed for the draw: one of the server's where nobody has given one."""
    selection = options.get("selection")
    if not selection or "seed" in selection:
        return dict(options)
    return {**options, "selection": {**selection, "seed": secrets.randbelow(MAX_SEED + 1)}}


def check_selection(aggregation_method: str, options: Options, strategy: Strategy) -> None:
    """Raise InvalidValue for a cohort that the strategy, or `min_updates`, could never be content with."""
    if not options.selection:
        return
    if strategy.buffer:
        sentence = f"options.selection does not go with {aggregation_method}: a round takes the first updates that come"
        raise InvalidValue(sentence)
    count = options.selection.get("count")
    if count is not None and count < strategy.min_updates:
        sentence = f"options.selection.count is {count}, and {aggregation_method} needs at least {strategy.min_updates}"
        raise InvalidValue(sentence)
    if count is not None and options.min_updates is not None and options.min_updates > count:
        raise InvalidValue(f"options.min_updates is {options.min_updates}, and options.selection.count only {count}")
