"""What weights are put into, found by name through entry points: ours, and those of what else is installed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from folkmoot.errors import InvalidValue

GROUP = "folkmoot.architectures"
"""Each entry point is a function without arguments that makes a torch module, or `predict(weights, inputs)`, which
computes with NumPy: `weights` maps names to arrays, and one row of the answer belongs to one row of `inputs`."""

Architecture = Callable[..., Any]


def architecture_names() -> list[str]:
    return sorted(_points())


def find_architecture(name: str) -> Architecture:
    """Raises InvalidValue for a name that nothing goes by, or whose code cannot be imported."""
    point = _points().get(name)
    if point is None:
        raise InvalidValue(f"architecture {name!r} is not known here; known are: {', '.join(architecture_names())}")
    loaded = _loaded(point)
    if loaded is None:
        raise InvalidValue(f"architecture {name!r} is installed here, and cannot be imported")
    return loaded


def computes_with_numpy(architecture: Architecture) -> bool:
    return list(inspect.signature(architecture).parameters) == ["weights", "inputs"]


def import_all() -> None:
    """Find and import all that there are: a confined process can read no file any more, and import nothing."""
    for point in _points().values():
        _loaded(point)


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


@cache
def _loaded(point: EntryPoint) -> Architecture | None:
    try:
        loaded: Architecture = point.load()
    except Exception:  # a plug-in may raise anything, and costs only itself
        return None
    return loaded
