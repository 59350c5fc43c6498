"""The strategies that come with Folkmoot, found through the same entry points as anybody else's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from folkmoot.aggregation.finding import find_strategy
from folkmoot.aggregation.mean import BufferedMean, FairMean, NormalizedMean, PlainMean, WeightedMean
from folkmoot.aggregation.optimizers import SGD, Adagrad, Adam, Momentum, Yogi
from folkmoot.aggregation.robust import Bulyan, CenteredClipping, GeometricMedian, Krum, Median, TrimmedMean
from folkmoot.aggregation.strategy import Aggregator, Buffer, ControlVariate, ServerOptimizer, Strategy
from folkmoot.errors import InvalidValue

NO_OPTIONS: Mapping[str, Any] = {}


def fedavg(*, server_learning_rate: float = 1.0) -> Strategy:
    """Federated averaging: McMahan et al. 2017, https://arxiv.org/abs/1602.05629"""
    return Strategy(WeightedMean(), SGD(server_learning_rate))


def fedprox(*, server_learning_rate: float = 1.0) -> Strategy:
    """FedAvg to the server: the proximal term is in what the participants minimise, as `local.proximal_mu` has it.

    Source: Li et al. 2020, https://arxiv.org/abs/1812.06127
    """
    return fedavg(server_learning_rate=server_learning_rate)


def feddc(*, server_learning_rate: float = 1.0) -> Strategy:
    """FedAvg of models that have wandered; how they wander is the training's matter.

    Source: Kamp et al. 2023, https://arxiv.org/abs/2110.03469
    """
    return fedavg(server_learning_rate=server_learning_rate)


def fednova(*, server_learning_rate: float = 1.0, local_momentum: float = 0.0) -> Strategy:
    """Updates normalised by local steps; each comes with the metric `local_steps`.

    Source: Wang et al. 2020, https://arxiv.org/abs/2007.07481
    """
    return Strategy(NormalizedMean(local_momentum), SGD(server_learning_rate), needs_metrics=("local_steps",))


def q_fedavg(*, q: float = 1.0, local_learning_rate: float = 0.1) -> Strategy:
    """Fairer among participants: who does badly counts more; each update comes with the metric `loss`.

    Source: Li et al. 2020, https://arxiv.org/abs/1905.10497
    """
    return Strategy(FairMean(q, local_learning_rate), SGD(), needs_metrics=("loss",))


def scaffold(*, server_learning_rate: float = 1.0, participation: float = 1.0) -> Strategy:
    """Control variates correct the participants' drift; each update brings the change of its own beside the model.

    For every float tensor `w` an update holds `control_variate/w`, the participant's new control variate minus its
    old one. The server's own, in the state, moves by their mean times `participation`, the share of all
    participants that a round asks: |S| / N in the paper.
    Source: Karimireddy et al. 2020, Algorithm 1, https://arxiv.org/abs/1910.06378
    """
    if not 0 < participation <= 1:
        raise InvalidValue(f"participation is above 0 and at most 1, not {participation}")
    control = ControlVariate("control_variate", participation)
    return Strategy(PlainMean(), SGD(server_learning_rate), control_variate=control)


def fedavgm(
    *,
    server_learning_rate: float = 1.0,
    momentum: float = 0.9,
    aggregator: str = "FedAvg",
    aggregator_options: Mapping[str, Any] = NO_OPTIONS,
) -> Strategy:
    """Momentum at the server, over any aggregator: Hsu et al. 2019, https://arxiv.org/abs/1909.06335"""
    return _over(aggregator, aggregator_options, Momentum(server_learning_rate, momentum))


def fedadagrad(
    *,
    server_learning_rate: float = 0.1,
    beta_1: float = 0.0,
    tau: float = 1e-3,
    aggregator: str = "FedAvg",
    aggregator_options: Mapping[str, Any] = NO_OPTIONS,
) -> Strategy:
    """Adagrad at the server, over any aggregator: Reddi et al. 2021, https://arxiv.org/abs/2003.00295"""
    return _over(aggregator, aggregator_options, Adagrad(server_learning_rate, beta_1, tau))


def fedadam(
    *,
    server_learning_rate: float = 0.1,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    tau: float = 1e-3,
    aggregator: str = "FedAvg",
    aggregator_options: Mapping[str, Any] = NO_OPTIONS,
) -> Strategy:
    """Adam at the server, over any aggregator: Reddi et al. 2021, https://arxiv.org/abs/2003.00295"""
    return _over(aggregator, aggregator_options, Adam(server_learning_rate, beta_1, tau, beta_2))


def fedyogi(
    *,
    server_learning_rate: float = 0.1,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    tau: float = 1e-3,
    aggregator: str = "FedAvg",
    aggregator_options: Mapping[str, Any] = NO_OPTIONS,
) -> Strategy:
    """Yogi at the server, over any aggregator: Reddi et al. 2021, https://arxiv.org/abs/2003.00295"""
    return _over(aggregator, aggregator_options, Yogi(server_learning_rate, beta_1, tau, beta_2))


def median(*, server_learning_rate: float = 1.0) -> Strategy:
    """The median of every value: Yin et al. 2018, https://arxiv.org/abs/1803.01498"""
    return _robust(Median(), server_learning_rate)


def trimmed_mean(*, trim: float = 0.1, server_learning_rate: float = 1.0) -> Strategy:
    """The mean without the `trim` largest and smallest of every value: Yin et al. 2018, https://arxiv.org/abs/1803.01498"""
    return _robust(TrimmedMean(trim), server_learning_rate)


def krum(*, num_byzantine: int, server_learning_rate: float = 1.0) -> Strategy:
    """The one update that is closest to its neighbours: Blanchard et al. 2017, https://arxiv.org/abs/1703.02757"""
    return _robust(Krum(num_byzantine), server_learning_rate)


def multi_krum(*, num_byzantine: int, num_selected: int | None = None, server_learning_rate: float = 1.0) -> Strategy:
    """The mean of the updates that are closest to their neighbours: Blanchard et al. 2017, https://arxiv.org/abs/1703.02757"""
    return _robust(Krum(num_byzantine, num_selected), server_learning_rate)


def bulyan(*, num_byzantine: int, server_learning_rate: float = 1.0) -> Strategy:
    """Krum, and then of every value what is close to the median: El Mhamdi et al. 2018, https://arxiv.org/abs/1802.07927"""
    return _robust(Bulyan(num_byzantine), server_learning_rate)


def rfa(*, smoothing: float = 1e-6, max_iterations: int = 1000, server_learning_rate: float = 1.0) -> Strategy:
    """The geometric median: Pillutla et al. 2022, https://arxiv.org/abs/1912.13445"""
    return _robust(GeometricMedian(smoothing, max_iterations), server_learning_rate)


def centered_clipping(*, radius: float, iterations: int = 1, server_learning_rate: float = 1.0) -> Strategy:
    """Deltas count as far as they are near: Karimireddy et al. 2021, https://arxiv.org/abs/2012.10333"""
    return _robust(CenteredClipping(radius, iterations), server_learning_rate)


def fedbuff(*, buffer_size: int, max_staleness: int = 10, server_learning_rate: float = 1.0) -> Strategy:
    """Buffered asynchronous training: a new model after every `buffer_size` updates, of whatever recent round.

    Source: Nguyen et al. 2022, https://arxiv.org/abs/2106.06639
    """
    return Strategy(BufferedMean(), SGD(server_learning_rate), buffer=Buffer(buffer_size, max_staleness))


def _robust(aggregator: Aggregator, server_learning_rate: float) -> Strategy:
    return Strategy(aggregator, SGD(server_learning_rate))


def _over(aggregator: str, options: Mapping[str, Any], optimizer: ServerOptimizer) -> Strategy:
    """Whatever else the strategy of that name has, such as a buffer or a clipping norm, stays its own."""
    found = find_strategy(aggregator, options)
    if found.server_optimizer.initial_state or "server_learning_rate" in options:
        raise InvalidValue(f"{aggregator} has a server optimizer or a learning rate of its own: choose one of the two")
    return replace(found, server_optimizer=optimizer)
