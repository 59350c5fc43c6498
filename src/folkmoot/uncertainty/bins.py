"""The fixed edges that everybody counts between, so that counts of several participants can be added.

A bin holds what is above its lower edge, up to and with its upper one; the first one holds its lower edge, too.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from folkmoot.uncertainty.outputs import Float64s

CONFIDENCE_EDGES = tuple(k / 15 for k in range(16))
"""Of how likely the predicted class is; 15 as in Guo et al. 2017."""
SCORE_EDGES = (
    *(k / 500 for k in range(500)),
    *(1 - float(f"{10 ** (-k / 40):.6g}") for k in range(108, 481)),
    1.0,
)
"""Of conformal scores of classes, 0 to 1. The last of 500 equal parts is divided again, 40 to a decade of what a score
lacks, down to 1e-12: of models that are too sure of themselves, the scores that matter all lie there."""
RESIDUAL_EDGES = (0.0, *(float(f"{10 ** (k / 80):.6g}") for k in range(-480, 481)), float("inf"))
"""Of absolute residuals, in the targets' units: 80 to a decade from 1e-6 to 1e6, so that an edge is at most 3 % above
what is under it."""


def bins_of(values: Float64s, edges: Sequence[float]) -> npt.NDArray[np.intp]:
    """The number of each value's bin; values lie between the first edge and the last."""
    return np.maximum(np.searchsorted(np.array(edges), values, side="left") - 1, 0)


def counts_of(values: Float64s, edges: Sequence[float]) -> tuple[int, ...]:
    """How many values each bin holds."""
    return tuple(np.bincount(bins_of(values, edges), minlength=len(edges) - 1).tolist())


def upper_edge(counts: Sequence[int], edges: Sequence[float], rank: int) -> float:
    """The upper edge of the bin that holds the `rank`-th smallest, counted from 1: no less than that value itself."""
    running = np.add.accumulate(np.array(counts, dtype=object))
    return edges[bisect.bisect_left(running.tolist(), rank) + 1]
