"""What a strategy is made of: an aggregator and a server optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from folkmoot.aggregation.arrays import Float64s
from folkmoot.aggregation.screening import Screen
from folkmoot.errors import AggregationFailed, InvalidValue


class Source(Protocol):
    """The bytes of a canonical TensorFile that lies somewhere other than in a folder."""

    @property
    def size(self) -> int:
        """The number of bytes."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset` on; called by several threads at once."""


@dataclass(frozen=True)
class Update:
    """What one participant sent in one round; `path` leads to a canonical TensorFile.

    `base` is the model that the participant began with, where that is not the round's, and `staleness` how many
    rounds ago it was the latest. `checksums` are those of tensors/checksums.py; where given, they are verified.
    """

    id: str
    path: Path | Source
    num_examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    base: Path | Source | None = None
    staleness: int = 0
    checksums: bytes = b""


class Measure(IntEnum):
    """What an aggregator has to know of the updates before it can weigh them; each costs another pass over them."""

    NOTHING = 0
    NORMS = 1
    """The L2 norm of each delta."""
    INNER_PRODUCTS = 2
    """That of every delta with every other."""


@dataclass(frozen=True)
class Cohort:
    """The updates that are to be merged, in the order of their ids, and what was measured of their deltas.

    `norms` has the shape (n,), `inner_products` (n, n); both are of the deltas after clipping, over all tensors
    that the strategy merges together, and empty where the aggregator's measure is a lesser one.
    """

    updates: Sequence[Update]
    norms: Float64s
    inner_products: Float64s

    def __len__(self) -> int:
        return len(self.updates)

    @property
    def num_examples(self) -> Float64s:
        return np.array([float(update.num_examples) for update in self.updates])

    def metric(self, name: str) -> Float64s:
        """That metric of each update; raises AggregationFailed, naming them, where some came without it."""
        missing = [update.id for update in self.updates if name not in update.metrics]
        if missing:
            raise AggregationFailed(f"the metric {name!r} is needed and missing from update {', '.join(missing)}")
        return np.array([float(update.metrics[name]) for update in self.updates])

    def squared_distances(self) -> Float64s:
        """Between every two updates, shape (n, n), none below 0."""
        squares = self.inner_products.diagonal()
        distances: Float64s = np.maximum(squares[:, None] + squares[None, :] - 2 * self.inner_products, 0.0)
        return distances


@dataclass(frozen=True)
class Weights:
    """How much each update counts, shape (n,), none below 0.

    The aggregate is the weighted mean of the updates; with `of_deltas` it is the base plus the weighted sum of the
    deltas, whatever the weights sum to.
    """

    values: Float64s
    of_deltas: bool = False


class Aggregator(Protocol):
    """How the updates of a round are merged: as a weighted sum, with weights that may depend on all of them.

    Frozen. What it decides must not depend on the order of the updates.
    """

    @property
    def measure(self) -> Measure: ...

    @property
    def min_updates(self) -> int:
        """With how few updates it can work."""

    def weigh(self, cohort: Cohort) -> Weights:
        """Say how much each update counts; raises AggregationFailed where that cannot be said."""


@runtime_checkable
class CoordinatewiseAggregator(Aggregator, Protocol):
    """One that merges each coordinate by itself; updates that it gives the weight 0 are left out."""

    def merge(self, values: npt.NDArray[Any], out: Float64s) -> None:
        """Merge `values`, shape (n, k) and float32 or float64, into `out`, shape (k,).

        Each column is sorted and may be overwritten. Called by several threads at once.
        """


class ServerOptimizer(Protocol):
    """How the next model is made of the aggregate; frozen, and called by several threads at once.

    What must survive from round to round goes in and comes out as state: for each name in `initial_state` one value
    for every value of the model, which is what stands there before the first round; between two rounds it is kept
    as float32, for tensors of float64 as that. Source of the split into aggregator and server optimizer:
    Reddi et al. 2021, https://arxiv.org/abs/2003.00295
    """

    @property
    def initial_state(self) -> Mapping[str, float]: ...

    def step(self, aggregate: Float64s, *, base: Callable[[], Float64s], state: Mapping[str, Float64s]) -> None:
        """Turn one block of the aggregate into the next model and `state` into the next state, in place.

        `base()` reads the same block of the model that the round began with.
        """


@dataclass(frozen=True)
class ControlVariate:
    """A tensor `<name>/<tensor>` that travels beside each float tensor of the model, in every update.

    The plain mean of what the updates bring, times `rate`, is added to what the state holds under that name.
    """

    name: str
    rate: float = 1.0


_MOST_BUFFERED = 10**6


@dataclass(frozen=True)
class Buffer:
    """Of asynchronous training: a round ends after `size` updates, and takes those that are up to some rounds late."""

    size: int
    max_staleness: int

    def __post_init__(self) -> None:
        if not 1 <= self.size <= _MOST_BUFFERED:
            raise InvalidValue(f"buffer_size is from 1 to {_MOST_BUFFERED:,}")
        if not 0 <= self.max_staleness <= _MOST_BUFFERED:
            raise InvalidValue(f"max_staleness is from 0 to {_MOST_BUFFERED:,}")


@dataclass(frozen=True)
class Strategy:
    """An aggregator with a server optimizer, and what happens to the updates before they are merged.

    `clip` bounds the L2 norm of every delta; `screen` leaves updates out; `rules` say, by patterns of names, which
    tensors are not for the strategy (see rules.py). With `scores` each update's norm and cosine are reported, which
    are measured while it is merged where nothing depends on them. `name` is that of the entry point, for messages.
    `needs_metrics` are the names of numbers that every update has to bring: a hub takes none without.
    """

    aggregator: Aggregator
    server_optimizer: ServerOptimizer
    control_variate: ControlVariate | None = None
    buffer: Buffer | None = None
    clip: float | None = None
    screen: Screen | None = None
    rules: tuple[tuple[str, str], ...] = ()
    scores: bool = False
    needs_metrics: tuple[str, ...] = ()
    name: str = field(default="", compare=False)

    @property
    def keeps_state(self) -> bool:
        return bool(self.server_optimizer.initial_state or self.control_variate)

    @property
    def min_updates(self) -> int:
        return self.aggregator.min_updates
