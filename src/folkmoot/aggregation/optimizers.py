"""Server optimizers: how a round's aggregate becomes the next model.

To each the aggregate minus the model is the step that the participants propose, the negative of a gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from folkmoot.aggregation.arrays import Float64s
from folkmoot.errors import InvalidValue


@dataclass(frozen=True)
class SGD:
    """Takes the proposed step, times the learning rate.

    With the learning rate 1, that of FedAvg, the next model is the aggregate itself, to the last bit.
    """

    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("the server learning rate", self.learning_rate)

    @property
    def initial_state(self) -> Mapping[str, float]:
        return {}

    def step(self, aggregate: Float64s, *, base: Callable[[], Float64s], state: Mapping[str, Float64s]) -> None:
        if self.learning_rate == 1:
            return
        start = base()
        aggregate -= start
        aggregate *= self.learning_rate
        aggregate += start


@dataclass(frozen=True)
class Momentum:
    """Adds to the proposed step the last one that was taken, times `momentum`.

    Source: Hsu et al. 2019, section 4.3 (FedAvgM), https://arxiv.org/abs/1909.06335
    """

    learning_rate: float = 1.0
    momentum: float = 0.9

    def __post_init__(self) -> None:
        _check_positive("the server learning rate", self.learning_rate)
        _check_fraction("momentum", self.momentum)

    @property
    def initial_state(self) -> Mapping[str, float]:
        return {"momentum": 0.0}

    def step(self, aggregate: Float64s, *, base: Callable[[], Float64s], state: Mapping[str, Float64s]) -> None:
        start, velocity = base(), state["momentum"]
        aggregate -= start
        velocity *= self.momentum
        velocity += aggregate
        np.multiply(velocity, self.learning_rate, out=aggregate)
        aggregate += start


@dataclass(frozen=True)
class Adaptive(ABC):
    """Divides a running mean of the proposed steps by the root of a second moment, plus `tau`.

    How the second moment moves is what the subclasses differ in, so that each has a name of its own for it in the
    state; it begins at tau squared, the least that the paper allows.
    Source: Reddi et al. 2021, Algorithm 2, https://arxiv.org/abs/2003.00295
    """

    SECOND: ClassVar[str]

    learning_rate: float = 0.1
    beta_1: float = 0.9
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _check_positive("the server learning rate", self.learning_rate)
        _check_positive("tau", self.tau)
        _check_fraction("beta_1", self.beta_1)

    @property
    def initial_state(self) -> Mapping[str, float]:
        return {"first_moment": 0.0, self.SECOND: self.tau**2}

    def step(self, aggregate: Float64s, *, base: Callable[[], Float64s], state: Mapping[str, Float64s]) -> None:
        start, first, second = base(), state["first_moment"], state[self.SECOND]
        aggregate -= start
        first *= self.beta_1
        first += (1 - self.beta_1) * aggregate
        self._move(second, aggregate * aggregate)
        np.divide(first, np.sqrt(second) + self.tau, out=aggregate)
        aggregate *= self.learning_rate
        aggregate += start

    @abstractmethod
    def _move(self, second: Float64s, squares: Float64s) -> None:
        """Move the second moment, in place, towards the squares of the proposed steps."""


@dataclass(frozen=True)
class Adagrad(Adaptive):
    """The second moment is the sum of the squares of all steps. With the paper's own `beta_1`, which is 0."""

    SECOND = "adagrad_second_moment"
    beta_1: float = 0.0

    def _move(self, second: Float64s, squares: Float64s) -> None:
        second += squares


@dataclass(frozen=True)
class Adam(Adaptive):
    """The second moment is a running mean of the squares."""

    SECOND = "adam_second_moment"
    beta_2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_fraction("beta_2", self.beta_2)

    def _move(self, second: Float64s, squares: Float64s) -> None:
        second *= self.beta_2
        second += (1 - self.beta_2) * squares


@dataclass(frozen=True)
class Yogi(Adaptive):
    """The second moment goes towards the squares by as much as a share of them, however far away they are."""

    SECOND = "yogi_second_moment"
    beta_2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_fraction("beta_2", self.beta_2)

    def _move(self, second: Float64s, squares: Float64s) -> None:
        second -= (1 - self.beta_2) * squares * np.sign(second - squares)


def _check_positive(what: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise InvalidValue(f"{what} is a number above 0, not {value}")


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InvalidValue(f"{name} is at least 0 and below 1, not {value}")
