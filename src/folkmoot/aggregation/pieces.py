"""How the values of one piece, of all updates, become one: a class for each way.

Each is given the updates some at a time, in the order of their ids, and then asked for the result: float64 where it
was computed, which the server optimizer may still move, the piece's own dtype where it was taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from folkmoot.aggregation.arrays import AT_ONCE_BYTES, Array, Float64s
from folkmoot.aggregation.kernels import Kernels
from folkmoot.aggregation.layout import Piece
from folkmoot.aggregation.rounding import distance, moved
from folkmoot.aggregation.rules import Treatment
from folkmoot.aggregation.sources import Reader, Reading, Scratch
from folkmoot.aggregation.strategy import CoordinatewiseAggregator
from folkmoot.errors import AggregationFailed
from folkmoot.tensors.schema import is_float


@dataclass(frozen=True)
class Input:
    """An update that counts.

    `weight` is how much in a mean, `of_delta` the factor of its delta in a sum of deltas, `scale` what clipping
    leaves of its delta, `base` the model that it began with where that is not the round's.
    """

    reader: Reader
    weight: float
    of_delta: float
    scale: float = 1.0
    base: Reader | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it counts as it is, wherever it began."""
        return self.scale == 1 and self.base is None


Group = Sequence[tuple[Input, Array]]
"""Some of the updates, each with its values of the piece in question."""


class PieceMerge(Protocol):
    def add(self, group: Group) -> None: ...
    def result(self) -> Array: ...


class Base:
    """The values of a model that updates began with, at the places of a piece."""

    def __init__(self, reader: Reader, scratch: Scratch, name: str = "base") -> None:
        self.reader, self._scratch, self._name = reader, scratch, name

    def values(self, piece: Piece) -> Array:
        """Only until the next call of any of this name."""
        raw = self.reader.read(piece.model, piece.num_bytes, self._scratch.bytes(self._name, piece.num_bytes))
        return raw.view(piece.dtype)

    def floats(self, piece: Piece, reader: Reader | None = None) -> Float64s:
        """As float64, until the next call; those of another model where there is a reader of one."""
        values = self.values(piece) if reader is None else Base(reader, self._scratch).values(piece)
        floats = self._scratch.floats("base as float64", piece.count)
        np.copyto(floats, values)
        return floats


@dataclass(frozen=True)
class Kept:
    """What it was when the round began."""

    piece: Piece
    base: Base

    def add(self, group: Group) -> None: ...

    def result(self) -> Array:
        return self.base.values(self.piece).copy()


class Largest:
    """The largest of all."""

    def __init__(self, piece: Piece) -> None:
        self._largest: Array = np.zeros(0, piece.dtype)

    def add(self, group: Group) -> None:
        for _, values in group:
            self._largest = np.maximum(self._largest, values) if self._largest.size else values.copy()

    def result(self) -> Array:
        return self._largest


@dataclass(frozen=True)
class WeightedMean:
    """Multiplied and added in float64, each step rounded by itself, then divided."""

    kernels: Kernels
    total: Float64s
    weight_of: Callable[[Input], float]
    all_weights: float

    def add(self, group: Group) -> None:
        values = [wide(values) for _, values in group]
        self.kernels.accumulate(self.total, values, [self.weight_of(each) for each, _ in group])

    def result(self) -> Float64s:
        return np.divide(self.total, self.all_weights, out=self.total)


@dataclass(frozen=True)
class DeltaSum:
    """The base plus the weighted sum of the deltas: where all are zero, that is the base to the last bit."""

    kernels: Kernels
    total: Float64s
    piece: Piece
    base: Base

    def add(self, group: Group) -> None:
        base: Float64s | None = None
        for each, values in group:
            if base is None or each.base is not None:
                base = self.base.floats(self.piece, reader=each.base)
            self.kernels.accumulate_deltas(self.total, wide(values), base, each.of_delta)
            base = base if each.base is None else None

    def result(self) -> Float64s:
        return np.add(self.total, self.base.floats(self.piece), out=self.total)


@dataclass(frozen=True)
class WholeMean:
    """The weighted mean of whole numbers, rounded: that of their distances from the base, which are exact."""

    mean: WeightedMean
    piece: Piece
    base: Base

    def add(self, group: Group) -> None:
        base = self.base.values(self.piece)
        self.mean.add([(each, distance(values, base)) for each, values in group])

    def result(self) -> Array:
        return moved(self.base.values(self.piece), self.mean.result())


@dataclass(frozen=True)
class Ordered:
    """Each coordinate by itself, some columns of all updates at a time."""

    aggregator: CoordinatewiseAggregator
    kernels: Kernels
    scratch: Scratch
    base: Base

    def merge(self, piece: Piece, readings: Sequence[tuple[Input, Reading]], total: Float64s) -> Array:
        """Read the next values of every update, merge them into `total`, and return what the piece is to hold."""
        step = max(AT_ONCE_BYTES // (8 * len(readings)), 256)
        for first in range(0, piece.count, step):
            part = piece.from_value(first, min(step, piece.count - first))
            rows = self._rows(part, readings)
            # The smallest of values with NaN among them is NaN; sorted they could hide it.
            if np.isnan(rows.min()):
                raise AggregationFailed("an update holds NaN")
            self.kernels.sort_columns(rows)
            self.aggregator.merge(rows, total[first : first + part.count])
        return total if is_float(piece.dtype) else moved(self.base.values(piece), total)

    def _rows(self, part: Piece, readings: Sequence[tuple[Input, Reading]]) -> Array:
        are_plain = all(each.is_plain for each, _ in readings)
        is_narrow = are_plain and is_float(part.dtype) and part.dtype.itemsize < 8
        dtype: type[np.floating[Any]] = np.float32 if is_narrow else np.float64
        size = len(readings) * part.count * np.dtype(dtype).itemsize
        rows = self.scratch.bytes("rows", size).view(dtype).reshape(len(readings), part.count)
        for row, (each, reading) in zip(rows, readings, strict=True):
            self._fill(row, each, part, next_values(reading, part, self.scratch))
        # Zero is added for what it does to the negative one, which no order puts before the other.
        return np.add(rows, 0, out=rows)

    def _fill(self, row: Array, each: Input, part: Piece, values: Array) -> None:
        if not is_float(part.dtype):
            row[:] = distance(values, self.base.values(part))
        elif each.is_plain or part.treatment is not Treatment.MERGE:
            row[:] = values
        else:
            np.subtract(values, self.base.floats(part, reader=each.base), out=row, dtype=np.float64)
            row *= each.scale
            row += self.base.floats(part)


def next_values(reading: Reading, piece: Piece, scratch: Scratch, row: int = 0) -> Array:
    """The piece's values of an update; only until the next call for the same row."""
    raw = reading.read(piece.update, piece.num_bytes, scratch.bytes(f"values {row}", piece.num_bytes))
    return raw.view(piece.dtype)


def wide(values: Array) -> Array:
    """float32 and float64 as they are; halves, which compiled loops do not know, as float32."""
    return values if values.dtype.itemsize >= 4 else values.astype(np.float32)
