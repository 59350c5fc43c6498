"""Scores of single updates, and leaving out those that lie outside a bound.

The scores are of deltas, over all tensors that the strategy merges together: `norm` is the L2 norm, `relative_norm`
that divided by the median of all, `cosine` the cosine of the angle to the mean of all, weighted by examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidValue

Status = Literal["accepted", "rejected", "quarantined"]

SCORES = ("norm", "relative_norm", "cosine")
ACTIONS: dict[str, Status] = {"reject": "rejected", "quarantine": "quarantined"}


@dataclass(frozen=True)
class Scores:
    """What was found out about one update; `weight` is its share in the aggregate, None where it has none of its own.

    A number is None where nothing measured it, or where it does not exist, such as the cosine of a delta of zeros.
    """

    norm: float | None = None
    relative_norm: float | None = None
    cosine: float | None = None
    weight: float | None = None
    status: Status = "accepted"
    reason: str = ""


@dataclass(frozen=True)
class Screen:
    """Leaves out updates whose `score` is outside `bound`: above it, and for `cosine` below it.

    Both actions leave the update out of the aggregate; what is quarantined is to be kept for a person to look at.
    """

    score: str
    bound: float
    action: str = "reject"

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise InvalidValue(f"screen.score is one of {', '.join(SCORES)}, not {self.score!r}")
        if self.action not in tuple(ACTIONS):  # which asks nothing of what came, as a dict would
            raise InvalidValue(f"screen.action is one of {', '.join(ACTIONS)}, not {self.action!r}")
        lowest, highest = (-1.0, 1.0) if self.score == "cosine" else (0.0, float("inf"))
        is_number = isinstance(self.bound, int | float) and not isinstance(self.bound, bool)
        if not is_number or not lowest <= self.bound <= highest:
            raise InvalidValue(
                f"screen.bound of {self.score} is a number from {lowest:g} to {highest:g}, not {self.bound!r}"
            )

    def why_not(self, scores: Scores) -> str:
        """Say why an update with these scores is left out; nothing where it is not."""
        value, name = getattr(scores, self.score), self.score.replace("_", " ")
        if self.score == "relative_norm" and value is None and scores.norm:
            return "its relative norm is infinite: the median of all norms is 0"
        if value is None:
            return ""
        if self.score == "cosine":
            return f"its {name} {value:.4g} is below {self.bound:g}" if value < self.bound else ""
        return f"its {name} {value:.4g} is above {self.bound:g}" if value > self.bound else ""


def scores_of(norms: npt.NDArray[np.float64], cosines: npt.NDArray[np.float64]) -> list[Scores]:
    """One for each update; a cosine that does not exist comes as NaN."""
    middle = float(np.median(norms))
    with np.errstate(all="ignore"):
        relative = norms / middle if middle else np.where(norms > 0, np.inf, 0.0)
    return [
        Scores(_finite(norm), _finite(of_median), _finite(cosine))
        for norm, of_median, cosine in zip(norms, relative, cosines, strict=True)
    ]


def _finite(value: np.float64) -> float | None:
    return float(value) if np.isfinite(value) else None
