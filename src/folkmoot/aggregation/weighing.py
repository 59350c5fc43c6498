"""How much each update counts: clipping, screening, and what the aggregator makes of what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from folkmoot.aggregation.arrays import Float64s, total
from folkmoot.aggregation.measuring import Measured
from folkmoot.aggregation.pieces import Input
from folkmoot.aggregation.screening import ACTIONS, Scores, scores_of
from folkmoot.aggregation.strategy import (
    Cohort,
    CoordinatewiseAggregator,
    Measure,
    Strategy,
    Update,
    Weights,
)
from folkmoot.errors import AggregationFailed


@dataclass(frozen=True)
class Weighed:
    """The updates that count, and the scores of all, both in the order of their ids."""

    inputs: Sequence[Input]
    of_deltas: bool
    scores: Sequence[Scores]


def wanted_measure(strategy: Strategy) -> Measure:
    """What has to be measured of the updates before they can be weighed."""
    asked = strategy.aggregator.measure
    needs_norms = strategy.clip is not None or strategy.screen is not None
    return max(asked, Measure.NORMS) if needs_norms else asked


def weigh(strategy: Strategy, updates: Sequence[Update], all_inputs: Sequence[Input], measured: Measured) -> Weighed:
    """Decide how much each counts; raises AggregationFailed where too few are left, or none counts."""
    norms = measured.norms if len(measured.norms) else np.zeros(len(updates))
    scores = scores_of(norms, measured.cosines) if len(measured.norms) else [Scores() for _ in updates]
    scores = [_screened(strategy, each, norm) for each, norm in zip(scores, norms.tolist(), strict=True)]
    left = [number for number, each in enumerate(scores) if each.status == "accepted"]
    _check_enough(strategy, len(left), [each.reason for each in scores])
    scales = _scales(strategy.clip, norms[left])
    weights = _weights(strategy, [updates[number] for number in left], measured, left, scales)
    shares = weights.values / total(weights.values)
    inputs = [
        replace(all_inputs[number], weight=weight, of_delta=factor, scale=scale)
        for number, weight, factor, scale in zip(
            left,
            weights.values.tolist(),
            ((weights.values if weights.of_deltas else shares) * scales).tolist(),
            scales.tolist(),
            strict=True,
        )
    ]
    if not isinstance(strategy.aggregator, CoordinatewiseAggregator):
        for number, share in zip(left, shares.tolist(), strict=True):
            scores[number] = replace(scores[number], weight=share)
    counting = [each for each in inputs if each.weight > 0]
    return Weighed(counting, weights.of_deltas or not all(each.is_plain for each in counting), scores)


def _screened(strategy: Strategy, scores: Scores, norm: float) -> Scores:
    """Leave out what the screen does, and what is so far away that nothing could be computed with it."""
    screen = strategy.screen
    status = ACTIONS[screen.action] if screen else "rejected"
    if not math.isfinite(norm) and (screen or strategy.aggregator.measure >= Measure.NORMS):
        return replace(scores, status=status, reason="its norm is too large to be computed")
    reason = screen.why_not(scores) if screen else ""
    return replace(scores, status=status, reason=reason) if reason else scores


def _check_enough(strategy: Strategy, count: int, reasons: Sequence[str]) -> None:
    needed = strategy.min_updates
    if count < needed:
        screened = sum(map(bool, reasons))
        left_out = f"; left out: {screened} ({next(filter(None, reasons))})" if screened else ""
        name = strategy.name or type(strategy.aggregator).__name__
        raise AggregationFailed(
            f"{name} needs {_counted(needed)}, and there {'is' if count == 1 else 'are'} {count}{left_out}"
        )


def _counted(count: int) -> str:
    return f"{count} update{'' if count == 1 else 's'}"


def _scales(clip: float | None, norms: Float64s) -> Float64s:
    """What is left of each delta for its norm not to exceed the bound.

    Source: Abadi et al. 2016, Algorithm 1, https://arxiv.org/abs/1607.00133 (there per example).
    """
    if clip is None:
        return np.ones(len(norms))
    with np.errstate(all="ignore"):
        scales: Float64s = np.where(norms > clip, clip / norms, 1.0)
    return scales


def _weights(
    strategy: Strategy, updates: Sequence[Update], measured: Measured, left: Sequence[int], scales: Float64s
) -> Weights:
    asked = strategy.aggregator.measure
    norms = measured.norms[list(left)] * scales if asked >= Measure.NORMS else np.zeros(0)
    products = np.zeros((0, 0))
    if asked is Measure.INNER_PRODUCTS:
        products = measured.inner_products[np.ix_(left, left)] * scales[:, None] * scales[None, :]
    if not (np.isfinite(norms).all() and np.isfinite(products).all()):
        raise AggregationFailed("the updates are too far from the model for their distances to be computed")
    weights = strategy.aggregator.weigh(Cohort(updates, norms, products))
    values = np.asarray(weights.values, np.float64)
    if values.shape != (len(updates),):
        raise AggregationFailed(f"the aggregator gave weights of shape {values.shape} for {_counted(len(updates))}")
    if not np.isfinite(values).all() or (values < 0).any() or not total(values) > 0:
        raise AggregationFailed("the weights of the updates must be 0 or more, and one of them above 0")
    return replace(weights, values=values)
