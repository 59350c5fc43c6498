"""The strategies that come with Folkmoot, found through the same entry points as anybody else's."""

from __future__ import annotations

from folkmoot.aggregation.mean import WeightedMean
from folkmoot.aggregation.optimizers import SGD
from folkmoot.aggregation.strategy import Strategy


def fedavg(*, server_learning_rate: float = 1.0) -> Strategy:
    """Federated averaging: McMahan et al. 2017, https://arxiv.org/abs/1602.05629"""
    return Strategy(WeightedMean(), SGD(server_learning_rate))


def fedprox(*, server_learning_rate: float = 1.0) -> Strategy:
    """FedAvg to the server: the proximal term is in what the participants minimise.

    Source: Li et al. 2020, https://arxiv.org/abs/1812.06127
    """
    return fedavg(server_learning_rate=server_learning_rate)


def feddc(*, server_learning_rate: float = 1.0) -> Strategy:
    """FedAvg of models that have wandered; how they wander is the training's matter.

    Source: Kamp et al. 2023, https://arxiv.org/abs/2110.03469
    """
    return fedavg(server_learning_rate=server_learning_rate)
