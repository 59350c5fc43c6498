"""Calibration statistics as a participant sends them; read with suspicion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from folkmoot.errors import InvalidValue
from folkmoot.uncertainty.calibration import ClassStatistics, RegressionStatistics, Statistics

MAX_ROWS = 10**9
"""Of one participant."""
_MAX_SUM = 1e12
_KINDS: dict[object, type[Statistics]] = {kind.TASK: kind for kind in (ClassStatistics, RegressionStatistics)}


def to_json(statistics: Statistics) -> dict[str, Any]:
    """What `from_json` reads: the task's name, and lists of numbers."""
    return {"task": statistics.TASK, **{name: list(values) for name, values in asdict(statistics).items()}}


def from_json(data: object) -> Statistics:
    """One participant's statistics; raises InvalidValue, naming the field, for whatever rows cannot have given."""
    if not isinstance(data, Mapping):
        raise InvalidValue("statistics: expected an object")
    task = data.get("task")
    if not isinstance(task, str) or task not in _KINDS:
        raise InvalidValue("task: expected " + " or ".join(f'"{name}"' for name in _KINDS))
    kind = _KINDS[task]
    for name in data:
        if name != "task" and name not in kind.LENGTHS:
            raise InvalidValue(f"{str(name)[:100]}: unknown field of statistics of {task}")
    statistics = kind(**{name: _numbers(name, data.get(name), length) for name, length in kind.LENGTHS.items()})
    if not 1 <= statistics.rows <= MAX_ROWS:
        raise InvalidValue(f"{next(iter(kind.LENGTHS))}: {statistics.rows} rows; expected 1 to {MAX_ROWS}")
    statistics.check()
    return statistics


def _numbers(name: str, values: object, length: int) -> tuple[Any, ...]:
    if not isinstance(values, list) or len(values) != length:
        raise InvalidValue(f"{name}: expected a list of {length} numbers")
    read = _count if name.endswith(("counts", "correct")) else _gap if name.endswith("gaps") else _sum
    return tuple(read(f"{name}[{k}]", value) for k, value in enumerate(values))


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_ROWS:
        raise InvalidValue(f"{name}: expected a whole number from 0 to {MAX_ROWS}")
    return value


def _sum(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_SUM:
        raise InvalidValue(f"{name}: expected a finite number, 0 or more")
    return float(value)


def _gap(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_MAX_SUM <= value <= _MAX_SUM:
        raise InvalidValue(f"{name}: expected a finite number")
    return float(value)
