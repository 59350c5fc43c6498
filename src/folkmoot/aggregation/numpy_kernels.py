"""The inner loops, in NumPy. Those of compiled.py give the same bits.

Every product and every sum is rounded by itself to float64, in the order that is written here. Sums over many values
run in LANES lanes side by side, so that processors can add them at once; the lanes are added up last, the second half
of them to the first, again and again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from folkmoot.aggregation.arrays import Float64s, Values

LANES = 64

COLUMNS = 1024
"""So many of a row are multiplied with those of another, and added up, before the next ones are."""

_TILE = 1 << 13
"""Values that stay in the first-level cache, with what is computed of them."""


class NumpyKernels:
    def accumulate(self, total: Float64s, values: Sequence[Values], weights: Sequence[float]) -> None:
        for tile in _tiles(len(total)):
            part = total[tile]
            for each, weight in zip(values, weights, strict=True):
                part += np.multiply(each[tile], weight, dtype=np.float64)

    def accumulate_deltas(self, total: Float64s, values: Values, base: Float64s, weight: float) -> None:
        for tile in _tiles(len(total)):
            delta = np.subtract(values[tile], base[tile], dtype=np.float64)
            delta *= weight
            total[tile] += delta

    def inner_products(self, values: Sequence[Values], bases: Sequence[Values], products: Float64s) -> None:
        deltas = np.zeros((len(values), COLUMNS))
        rows = deltas.reshape(len(values), -1, LANES)
        for tile in _tiles(len(values[0]), COLUMNS):
            size = tile.stop - tile.start
            for delta, some, base in zip(deltas, values, bases, strict=True):
                np.subtract(some[tile], base[tile], out=delta[:size], dtype=np.float64)
                delta[size:] = 0.0
            for number, row in enumerate(rows):
                lanes = np.add.reduce(row * rows[: number + 1], axis=1)
                products[number, : number + 1] += [_sum(each) for each in lanes]

    def mean_products(
        self, values: Sequence[Values], bases: Sequence[Values], shares: Float64s, stretch: int, products: Float64s
    ) -> None:
        for whole in _tiles(len(values[0]), stretch):
            self._mean_products([each[whole] for each in values], [each[whole] for each in bases], shares, products)

    def _mean_products(
        self, values: Sequence[Values], bases: Sequence[Values], shares: Float64s, products: Float64s
    ) -> None:
        lanes = np.zeros((len(values) + 1, 2, LANES))
        for tile in _tiles(len(values[0])):
            mean = np.zeros(tile.stop - tile.start)
            for some, base, share in zip(values, bases, shares, strict=True):
                mean += np.subtract(some[tile], base[tile], dtype=np.float64) * share
            for (squares, of_mean), some, base in zip(lanes, values, bases, strict=False):
                delta = np.subtract(some[tile], base[tile], dtype=np.float64)
                _add_lanes(squares, delta * delta)
                _add_lanes(of_mean, delta * mean)
            _add_lanes(lanes[-1, 0], mean * mean)
        for sums, of_row in zip(products, lanes, strict=True):
            sums += [_sum(each) for each in of_row]

    def sort_columns(self, values: Values) -> None:
        for tile in _tiles(values.shape[1], max(_TILE // len(values), 256)):
            part = values[:, tile]
            for low, high in comparators(len(values)):
                smaller = np.minimum(part[low], part[high])
                np.maximum(part[low], part[high], out=part[high])
                part[low] = smaller


@cache
def comparators(count: int) -> tuple[tuple[int, int], ...]:
    """Which two rows to compare, one pair after another, so that `count` rows are sorted in the end.

    Source: Batcher 1968, "Sorting networks and their applications", https://doi.org/10.1145/1468075.1468121;
    in the form of Knuth, The Art of Computer Programming, volume 3, section 5.2.2, algorithm M.
    """
    return tuple(_merge_exchange(count))


def _merge_exchange(count: int) -> Iterator[tuple[int, int]]:
    step = top = (1 << max(count - 1, 0).bit_length()) >> 1
    while step:
        further, offset, distance = top, 0, step
        while True:
            yield from ((row, row + distance) for row in range(count - distance) if row & step == offset)
            if further == step:
                break
            distance, further, offset = further - step, further >> 1, step
        step >>= 1


def _tiles(count: int, size: int = _TILE) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _add_lanes(lanes: Float64s, values: Float64s) -> None:
    """Row by row of LANES values; _TILE is a multiple of it, so that only the very last row is shorter."""
    whole = len(values) // LANES * LANES
    rows = np.concatenate([lanes[None], values[:whole].reshape(-1, LANES)])
    np.add.reduce(rows, axis=0, out=lanes)
    lanes[: len(values) - whole] += values[whole:]


def _sum(lanes: Float64s) -> float:
    half = LANES // 2
    while half:
        lanes[:half] += lanes[half : 2 * half]
        half //= 2
    return float(lanes[0])
