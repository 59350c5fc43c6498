"""Aggregators that some of the updates cannot lead astray, whatever they hold.

Numbers of examples do not count here: whoever lies about the weights can lie about its data too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.aggregation.arrays import Float64s, total
from folkmoot.aggregation.strategy import Cohort, Measure, Weights
from folkmoot.errors import InvalidValue

_STILL = 1e-9
_MOST_ITERATIONS = 10_000
"""Of a thousand updates so many take a minute."""


@dataclass(frozen=True)
class Median:
    """Every value is the median over the updates, of an even number the mean of the two in the middle.

    Source: Yin et al. 2018, Algorithm 1, https://arxiv.org/abs/1803.01498 (there of gradients)
    """

    measure = Measure.NOTHING
    min_updates = 1

    def weigh(self, cohort: Cohort) -> Weights:
        return Weights(np.ones(len(cohort)))

    def merge(self, values: npt.NDArray[Any], out: Float64s) -> None:
        n = len(values)
        np.add(values[(n - 1) // 2], values[n // 2], out=out, dtype=np.float64)
        out /= 2


@dataclass(frozen=True)
class TrimmedMean:
    """Every value is the mean over the updates without the largest and the smallest ones.

    From each side the share `trim` of the updates is left out, rounded up, so that there is at least one where
    `trim` is not 0. Source: Yin et al. 2018, Algorithm 1, option II, https://arxiv.org/abs/1803.01498
    """

    trim: float
    measure = Measure.NOTHING

    def __post_init__(self) -> None:
        if not 0 <= self.trim < 0.5:
            raise InvalidValue(f"trim is at least 0 and below 0.5, not {self.trim}")

    @property
    def min_updates(self) -> int:
        # One value is left of n = 2 k + 1 where k is at least trim * n.
        return 2 * math.ceil(round(self.trim / (1 - 2 * self.trim), 9)) + 1

    def weigh(self, cohort: Cohort) -> Weights:
        return Weights(np.ones(len(cohort)))

    def merge(self, values: npt.NDArray[Any], out: Float64s) -> None:
        left_out = min(self._left_out(len(values)), (len(values) - 1) // 2)
        _mean(values[left_out : len(values) - left_out], out)

    def _left_out(self, n: int) -> int:
        # 0.28 * 25 is 7.000000000000001 to a computer.
        return math.ceil(round(self.trim * n, 9))


@dataclass(frozen=True)
class Krum:
    """The mean of the `num_selected` updates that are closest to their neighbours; with 1 that is Krum itself.

    An update's score is the sum of the squared distances to the n - f - 2 updates next to it, where n is how many
    there are and f, `num_byzantine`, how many of them may be anything; of equal scores the first by id counts.
    Without `num_selected` the n - f best are taken. Source: Blanchard et al. 2017, https://arxiv.org/abs/1703.02757
    """

    num_byzantine: int
    num_selected: int | None = 1
    measure = Measure.INNER_PRODUCTS

    def __post_init__(self) -> None:
        _check_num_byzantine(self.num_byzantine)
        if self.num_selected is not None and self.num_selected < 1:
            raise InvalidValue(f"num_selected is at least 1, not {self.num_selected}")

    @property
    def min_updates(self) -> int:
        return max(2 * self.num_byzantine + 3, self.num_selected or 1)

    def weigh(self, cohort: Cohort) -> Weights:
        n = len(cohort)
        scores = _krum_scores(cohort.squared_distances(), n - self.num_byzantine - 2)
        chosen = np.argsort(scores, kind="stable")[: self.num_selected or n - self.num_byzantine]
        return Weights(_ones_at(chosen, n))


@dataclass(frozen=True)
class Bulyan:
    """Krum again and again until n - 2f updates are chosen; of these, per value, the mean of those at the median.

    f is `num_byzantine`; the n - 4f values closest to the median of the chosen ones count, of two that are equally
    close the smaller. Source: El Mhamdi et al. 2018, section 4, https://arxiv.org/abs/1802.07927 (there the median
    of an even number is one of the values, here the mean of the two in the middle)
    """

    num_byzantine: int
    measure = Measure.INNER_PRODUCTS

    def __post_init__(self) -> None:
        _check_num_byzantine(self.num_byzantine)

    @property
    def min_updates(self) -> int:
        return 4 * self.num_byzantine + 3

    def weigh(self, cohort: Cohort) -> Weights:
        distances, left = cohort.squared_distances(), list(range(len(cohort)))
        chosen = []
        for _ in range(len(cohort) - 2 * self.num_byzantine):
            # With few left there are fewer neighbours than Krum asks for, and at least one to compare with.
            neighbours = max(len(left) - self.num_byzantine - 2, 1)
            scores = _krum_scores(distances[np.ix_(left, left)], neighbours)
            chosen.append(left.pop(int(np.argmin(scores))))
        return Weights(_ones_at(chosen, len(cohort)))

    def merge(self, values: npt.NDArray[Any], out: Float64s) -> None:
        count = max(len(values) - 2 * self.num_byzantine, 1)
        median = np.empty(len(out))
        Median().merge(values, median)
        # All are sorted, so that those closest to it lie side by side: go on while the next is closer than the first.
        _mean(values[:count], out)
        stretch = np.empty(len(out))
        for first in range(len(values) - count):
            is_closer = values[first + count] - median < median - values[first]
            _mean(values[first + 1 : first + 1 + count], stretch)
            np.copyto(out, stretch, where=is_closer)


@dataclass(frozen=True)
class GeometricMedian:
    """The point whose distances to the updates have the smallest sum, found by the smoothed Weiszfeld algorithm.

    It needs the inner products alone, so that it is iterated until it no longer moves, where the paper goes over the
    updates some three times. `smoothing` keeps an update that the point coincides with from counting infinitely.
    Source: Pillutla et al. 2022, Algorithm 2, https://arxiv.org/abs/1912.13445, with equal weights for all.
    """

    smoothing: float = 1e-6
    max_iterations: int = 1000
    measure = Measure.INNER_PRODUCTS
    min_updates = 1

    def __post_init__(self) -> None:
        if not 0 < self.smoothing < float("inf"):
            raise InvalidValue(f"smoothing is a number above 0, not {self.smoothing}")
        _check_iterations("max_iterations", self.max_iterations)

    def weigh(self, cohort: Cohort) -> Weights:
        shares = np.full(len(cohort), 1 / len(cohort))
        for _ in range(self.max_iterations):
            closeness = 1 / np.maximum(_distances_to(shares, cohort.inner_products), self.smoothing)
            following = closeness / total(closeness)
            # By how much for its size: a share of 1e-12 still counts of an update that is 1e30 away.
            has_moved = (np.abs(following - shares) > _STILL * following).any()
            shares = following
            if not has_moved:
                break
        return Weights(shares)


@dataclass(frozen=True)
class CenteredClipping:
    """Deltas count as far as they are within `radius` of a centre, which moves to their mean, `iterations` times.

    The centre begins at the model that the round began with. Equal updates that are farther away than the radius
    therefore move the model by the radius at a time. Source: Karimireddy et al. 2021, Algorithm 2 and equation 6,
    https://arxiv.org/abs/2012.10333 (there of gradients with momentum, and beginning at the last aggregate)
    """

    radius: float
    iterations: int = 1
    measure = Measure.INNER_PRODUCTS
    min_updates = 1

    def __post_init__(self) -> None:
        if not 0 < self.radius < float("inf"):
            raise InvalidValue(f"radius is a number above 0, not {self.radius}")
        _check_iterations("iterations", self.iterations)

    def weigh(self, cohort: Cohort) -> Weights:
        centre = np.zeros(len(cohort))
        for _ in range(self.iterations):
            distances = _distances_to(centre, cohort.inner_products)
            pull = self.radius / np.maximum(distances, self.radius) / len(cohort)
            centre = centre * (1 - total(pull)) + pull
        return Weights(centre, of_deltas=True)


def _check_num_byzantine(value: int) -> None:
    if value < 0:
        raise InvalidValue(f"num_byzantine is at least 0, not {value}")


def _check_iterations(name: str, value: int) -> None:
    if not 1 <= value <= _MOST_ITERATIONS:
        raise InvalidValue(f"{name} is from 1 to {_MOST_ITERATIONS}, not {value}")


def _krum_scores(distances: Float64s, neighbours: int) -> Float64s:
    """Of each update the sum of the squared distances to so many others next to it, the nearest first."""
    ordered = np.sort(distances, axis=1)[:, 1 : neighbours + 1]
    scores: Float64s = np.add.accumulate(ordered, axis=1)[:, -1] if ordered.size else np.zeros(len(distances))
    return scores


def _distances_to(shares: Float64s, products: Float64s) -> Float64s:
    """From each delta to the sum of all, each times its share; inner products are all that it takes."""
    to_sum = np.array([total(row * shares) for row in products])
    of_sum = total(to_sum * shares)
    distances: Float64s = np.sqrt(np.maximum(products.diagonal() - 2 * to_sum + of_sum, 0.0))
    return distances


def _ones_at(chosen: Any, n: int) -> Float64s:
    weights = np.zeros(n)
    weights[chosen] = 1.0
    return weights


def _mean(rows: npt.NDArray[Any], out: Float64s) -> None:
    out.fill(0.0)
    for row in rows:
        out += row
    out /= len(rows)
