"""The weighted mean, the aggregator of FedAvg."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from folkmoot.aggregation.strategy import Float64s, Update


@dataclass(frozen=True)
class WeightedMean:
    """Every value is the mean over the updates, each counting as often as it has examples.

    Multiplied and added in float64 in the order of the ids, each step rounded by itself, then divided.
    Source: McMahan et al. 2017, Algorithm 1, https://arxiv.org/abs/1602.05629
    """

    def aggregate(self, updates: Iterable[tuple[Update, Float64s]], out: Float64s) -> None:
        out.fill(0.0)
        num_examples = 0
        for update, values in updates:
            np.multiply(values, float(update.num_examples), out=values)
            np.add(out, values, out=out)
            num_examples += update.num_examples
        np.divide(out, float(num_examples), out=out)
