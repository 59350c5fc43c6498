"""Server optimizers: how a round's aggregate becomes the next model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from folkmoot.aggregation.strategy import Float64s
from folkmoot.errors import InvalidValue


@dataclass(frozen=True)
class SGD:
    """Gradient descent in which the model minus the aggregate is the gradient.

    With the learning rate 1, that of FedAvg, the next model is the aggregate itself, to the last bit.
    """

    learning_rate: float = 1.0
    state_names: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < float("inf"):
            raise InvalidValue(f"a learning rate is a number above 0, not {self.learning_rate}")

    def step(self, aggregate: Float64s, *, base: Callable[[], Float64s], state: Mapping[str, Float64s]) -> None:
        if self.learning_rate == 1:
            return
        start = base()
        np.subtract(aggregate, start, out=aggregate)
        np.multiply(aggregate, self.learning_rate, out=aggregate)
        np.add(aggregate, start, out=aggregate)
