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
    return sorted(entry_points(group=GROUP).names)


def find_architecture(name: str) -> Architecture:
    """Raises InvalidValue for a name that nothing goes by, or whose code cannot be imported."""
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        raise InvalidValue(f"architecture {name!r} is not known here; known are: {', '.join(architecture_names())}")
    loaded = _loaded(found[0])
    if loaded is None:
        raise InvalidValue(f"architecture {name!r} is installed here, and cannot be imported")
    return loaded


def computes_with_numpy(architecture: Architecture) -> bool:
    return list(inspect.signature(architecture).parameters) == ["weights", "inputs"]


def import_all() -> dict[str, Architecture | None]:
    """All that can be imported: a confined process can import nothing any more. None for those that failed."""
    return {point.name: _loaded(point) for point in entry_points(group=GROUP)}


@cache
def _loaded(point: EntryPoint) -> Architecture | None:
    try:
        loaded: Architecture = point.load()
    except Exception:  # a plug-in may raise anything, and costs only itself
        return None
    return loaded
