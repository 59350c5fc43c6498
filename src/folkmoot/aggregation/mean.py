"""Weighted means: the aggregators of FedAvg and of what differs from it in its weights alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from folkmoot.aggregation.arrays import Float64s, total
from folkmoot.aggregation.strategy import Cohort, Measure, Weights
from folkmoot.errors import AggregationFailed, InvalidValue


@dataclass(frozen=True)
class WeightedMean:
    """Every value is the mean over the updates, each counting as often as it has examples.

    Source: McMahan et al. 2017, Algorithm 1, https://arxiv.org/abs/1602.05629
    """

    measure = Measure.NOTHING
    min_updates = 1

    def weigh(self, cohort: Cohort) -> Weights:
        return Weights(cohort.num_examples)


@dataclass(frozen=True)
class PlainMean:
    """Every value is the mean over the updates, which all count alike."""

    measure = Measure.NOTHING
    min_updates = 1

    def weigh(self, cohort: Cohort) -> Weights:
        return Weights(np.ones(len(cohort)))


@dataclass(frozen=True)
class NormalizedMean:
    """Deltas count per local step, so that who took more steps does not pull the model towards itself.

    Needs the metric `local_steps` of every update. The vector a of the paper, with local momentum rho, sums to
    (tau - rho (1 - rho^tau) / (1 - rho)) / (1 - rho) after tau steps, without to tau.
    Source: Wang et al. 2020, equations 7 and 10, https://arxiv.org/abs/2007.07481
    """

    local_momentum: float = 0.0
    measure = Measure.NOTHING
    min_updates = 1

    def __post_init__(self) -> None:
        if not 0 <= self.local_momentum < 1:
            raise InvalidValue(f"local_momentum is at least 0 and below 1, not {self.local_momentum}")

    def weigh(self, cohort: Cohort) -> Weights:
        steps = _at_least(cohort, "local_steps", 1)
        rho = self.local_momentum
        sums = (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
        shares = cohort.num_examples / total(cohort.num_examples)
        return Weights(total(shares * sums) * shares / sums, of_deltas=True)


@dataclass(frozen=True)
class FairMean:
    """Updates count the more the higher their loss is, raised to the power q; with q = 0 all alike.

    Needs the metric `loss` of every update: that of the model which the round began with, on the participant's data.
    Source: Li et al. 2020, Algorithm 2, https://arxiv.org/abs/1905.10497, where L is 1 / `local_learning_rate`.
    """

    q: float
    local_learning_rate: float
    measure = Measure.NORMS
    min_updates = 1

    def __post_init__(self) -> None:
        if not 0 <= self.q < float("inf"):
            raise InvalidValue(f"q is a number of at least 0, not {self.q}")
        if not 0 < self.local_learning_rate < float("inf"):
            raise InvalidValue(f"local_learning_rate is a number above 0, not {self.local_learning_rate}")

    def weigh(self, cohort: Cohort) -> Weights:
        # As in the authors' code, a loss of 0 is a tiny one: with q < 1 its power would not exist.
        loss = _at_least(cohort, "loss", 0) + 1e-10
        lipschitz = 1 / self.local_learning_rate
        gradients = lipschitz * cohort.norms
        steps = self.q * loss ** (self.q - 1) * gradients**2 + lipschitz * loss**self.q
        return Weights(lipschitz * loss**self.q / total(steps), of_deltas=True)


@dataclass(frozen=True)
class BufferedMean:
    """Deltas count the less the older the model is that they began with: 1 / sqrt(1 + staleness).

    Source: Nguyen et al. 2022, Algorithm 1, https://arxiv.org/abs/2106.06639, with the weights of its section 5.
    """

    measure = Measure.NOTHING
    min_updates = 1

    def weigh(self, cohort: Cohort) -> Weights:
        staleness = np.array([float(update.staleness) for update in cohort.updates])
        return Weights(1 / np.sqrt(1 + staleness) / len(cohort), of_deltas=True)


def _at_least(cohort: Cohort, name: str, least: float) -> Float64s:
    values = cohort.metric(name)
    for update, value in zip(cohort.updates, values.tolist(), strict=True):
        if not least <= value < float("inf"):
            raise AggregationFailed(f"update {update.id} has {name} {value:g}, expected at least {least:g}")
    return values
