"""The strategies that come with Folkmoot, found through the same entry points as anybody else's."""

from __future__ import annotations

from folkmoot.aggregation.mean import WeightedMean
from folkmoot.aggregation.optimizers import SGD
from folkmoot.aggregation.strategy import Strategy


def fedavg(*, server_learning_rate: float = 1.0) -> Strategy:
    """Federated averaging: McMahan et al. 2017, https://arxiv.org/abs/1602.05629"""
    return Strategy(WeightedMean(), SGD(server_learning_rate))
