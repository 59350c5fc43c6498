"""What a strategy is made of, and how one is found by its name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidValue, Misconfigured

Float64s = npt.NDArray[np.float64]

ENTRY_POINT_GROUP = "folkmoot.strategies"


class Source(Protocol):
    """The bytes of a canonical TensorFile that lies somewhere other than in a folder."""

    @property
    def size(self) -> int:
        """The number of bytes."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset` on; called by several threads at once."""


@dataclass(frozen=True)
class Update:
    """What one participant sent in one round; `path` leads to a canonical TensorFile."""

    id: str
    path: Path | Source
    num_examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)


class Aggregator(Protocol):
    """How the updates of a round are merged; frozen, and called by several threads at once."""

    def aggregate(self, updates: Iterable[tuple[Update, Float64s]], out: Float64s) -> None:
        """Merge one block of every update into `out`, whose content is undefined before.

        The updates come in the order of their ids. The values may be overwritten, and are gone when the
        next ones are asked for. What is written must depend on the values at the same place only, so
        that it is the same however the tensors are cut into blocks.
        """


class ServerOptimizer(Protocol):
    """How the next model is made of the aggregate; frozen, and called by several threads at once.

    What must survive from round to round goes in and comes out as `state`: for each of `state_names` one
    value for every value of the model, zero before the first round. Source of the split into aggregator
    and server optimizer: Reddi et al. 2021, https://arxiv.org/abs/2003.00295
    """

    @property
    def state_names(self) -> tuple[str, ...]: ...

    def step(self, aggregate: Float64s, *, base: Callable[[], Float64s], state: Mapping[str, Float64s]) -> None:
        """Turn one block of the aggregate into the next model and `state` into the next state, in place.

        `base()` reads the same block of the model that the round began with.
        """


@dataclass(frozen=True)
class Strategy:
    aggregator: Aggregator
    server_optimizer: ServerOptimizer


Factory = Callable[..., Strategy]


def strategies() -> dict[str, Factory]:
    """Return the factories of all installed strategies by name; a factory's keywords are its options."""
    return {name: _load(entry_point) for name, entry_point in sorted(_entry_points().items())}


def find_strategy(name: str, options: Mapping[str, Any]) -> Strategy:
    """Make the strategy of that name; raises InvalidValue for a name or an option that there is not."""
    installed = _entry_points()
    if name not in installed:
        raise InvalidValue(f"there is no strategy {name!r}; there are {', '.join(sorted(installed))}")
    factory = _load(installed[name])
    _check_options(name, inspect.signature(factory, eval_str=True).parameters, options)
    return factory(**options)


def _entry_points() -> dict[str, EntryPoint]:
    return _entry_points_on(tuple(sys.path))


@cache
def _entry_points_on(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    # Read once: the metadata of everything that is installed takes longer to read than a small aggregation.
    return {entry_point.name: entry_point for entry_point in entry_points(group=ENTRY_POINT_GROUP)}


def _load(entry_point: EntryPoint) -> Factory:
    try:
        factory: Factory = entry_point.load()
    except (ImportError, AttributeError) as error:
        raise Misconfigured(f"the strategy {entry_point.name} cannot be loaded: {error}") from error
    return factory


def _check_options(name: str, known: Mapping[str, inspect.Parameter], options: Mapping[str, Any]) -> None:
    for option, value in options.items():
        if option not in known:
            takes = ", ".join(sorted(known)) or "none"
            raise InvalidValue(f"{name} has no option {option!r}; its options are: {takes}")
        _check_type(name, option, value, known[option].annotation)
    missing = [option for option, parameter in known.items() if parameter.default is parameter.empty]
    if missing_here := sorted(set(missing) - set(options)):
        raise InvalidValue(f"{name} needs the option {missing_here[0]!r}")


_ACCEPTED: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
}


def _check_type(name: str, option: str, value: Any, annotation: Any) -> None:
    accepted, words = _ACCEPTED.get(annotation, ((object,), ""))
    # bool is an int to Python
    if not isinstance(value, accepted) or (isinstance(value, bool) and annotation in (int, float)):
        raise InvalidValue(f"the option {option!r} of {name} must be {words}, not {value!r}")
