"""The inner loops of numpy_kernels.py, compiled with numba: the same bits, some times as fast. Needs numba."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from folkmoot.aggregation.arrays import Float64s, Values
from folkmoot.aggregation.numpy_kernels import COLUMNS, LANES, comparators


def _compile(loop: Callable[..., Any]) -> Any:
    # No fastmath, and so no fused multiplication and addition: the bits would be others.
    try:
        return numba.njit(nogil=True, cache=True)(loop)
    except RuntimeError:  # there is no folder to keep it in: compiling takes some seconds in each process then
        return numba.njit(nogil=True)(loop)


_SORTED_COLUMNS = 512
"""How many columns are sorted at once: so many of all rows stay in the cache."""


class _CompiledKernels:
    def accumulate(self, total: Float64s, values: Sequence[Values], weights: Sequence[float]) -> None:
        done = 0
        while done + 4 <= len(values):
            _accumulate_four(total, *map(_readonly, values[done : done + 4]), *weights[done : done + 4])
            done += 4
        for each, weight in zip(values[done:], weights[done:], strict=True):
            _accumulate(total, _readonly(each), weight)

    def accumulate_deltas(self, total: Float64s, values: Values, base: Float64s, weight: float) -> None:
        _accumulate_deltas(total, _readonly(values), base, weight)

    def delta_products(self, values: Values, base: Float64s, other: Float64s) -> tuple[float, float]:
        square, product = _delta_products(_readonly(values), base, other)
        return float(square), float(product)

    def subtract(self, values: Values, base: Float64s, out: Float64s) -> None:
        _subtract(_readonly(values), base, out)

    def inner_products(self, deltas: Float64s, products: Float64s) -> None:
        _inner_products(deltas, products)

    def sort_columns(self, values: Values) -> None:
        _sort_columns(values, _comparator_array(len(values)))


COMPILED = _CompiledKernels()


def _readonly(values: Values) -> Values:
    """What is mapped into memory is, and one compiled loop is to serve all."""
    if values.flags.writeable:
        values = values.view()
        values.flags.writeable = False
    return values


@cache
def _comparator_array(count: int) -> npt.NDArray[np.int64]:
    return np.array(comparators(count), np.int64).reshape(-1, 2)


@_compile
def _accumulate(total, values, weight):  # type: ignore[no-untyped-def]
    for i in range(total.size):
        total[i] += np.float64(values[i]) * weight


@_compile
def _accumulate_four(total, a, b, c, d, of_a, of_b, of_c, of_d):  # type: ignore[no-untyped-def]
    for i in range(total.size):
        so_far = total[i] + np.float64(a[i]) * of_a
        so_far = so_far + np.float64(b[i]) * of_b
        so_far = so_far + np.float64(c[i]) * of_c
        total[i] = so_far + np.float64(d[i]) * of_d


@_compile
def _accumulate_deltas(total, values, base, weight):  # type: ignore[no-untyped-def]
    for i in range(total.size):
        total[i] += (np.float64(values[i]) - base[i]) * weight


# Slices, and inner loops over all lanes: in this form the compiler takes many lanes at once.


@_compile
def _sum(lanes):  # type: ignore[no-untyped-def]
    half = LANES // 2
    while half:
        low, high = lanes[:half], lanes[half : 2 * half]
        for lane in range(half):
            low[lane] += high[lane]
        half //= 2
    return lanes[0]


@_compile
def _delta_products(values, base, other):  # type: ignore[no-untyped-def]
    square, product = np.zeros(LANES), np.zeros(LANES)
    for start in range(0, values.size, LANES):
        stop = min(start + LANES, values.size)
        some, of_base, of_other = values[start:stop], base[start:stop], other[start:stop]
        for lane in range(stop - start):
            delta = np.float64(some[lane]) - of_base[lane]
            square[lane] += delta * delta
            product[lane] += delta * of_other[lane]
    return _sum(square), _sum(product)


@_compile
def _subtract(values, base, out):  # type: ignore[no-untyped-def]
    for i in range(values.size):
        out[i] = np.float64(values[i]) - base[i]


@_compile
def _inner_products(deltas, products):  # type: ignore[no-untyped-def]
    lanes = np.empty(LANES)
    width = deltas.shape[1]
    flat = deltas.reshape(-1)
    for tile in range(0, width, COLUMNS):
        for row in range(deltas.shape[0]):
            first = flat[row * width + tile : row * width + tile + COLUMNS]
            for column in range(row + 1):
                second = flat[column * width + tile : column * width + tile + COLUMNS]
                products[row, column] += _product(first, second, lanes)


@_compile
def _product(first, second, lanes):  # type: ignore[no-untyped-def]
    lanes[:] = 0.0
    for start in range(0, COLUMNS, 4 * LANES):
        a, of_a = first[start : start + LANES], second[start : start + LANES]
        b, of_b = first[start + LANES : start + 2 * LANES], second[start + LANES : start + 2 * LANES]
        c, of_c = first[start + 2 * LANES : start + 3 * LANES], second[start + 2 * LANES : start + 3 * LANES]
        d, of_d = first[start + 3 * LANES : start + 4 * LANES], second[start + 3 * LANES : start + 4 * LANES]
        for lane in range(LANES):
            so_far = lanes[lane] + a[lane] * of_a[lane]
            so_far = so_far + b[lane] * of_b[lane]
            so_far = so_far + c[lane] * of_c[lane]
            lanes[lane] = so_far + d[lane] * of_d[lane]
    return _sum(lanes)


@_compile
def _sort_columns(values, pairs):  # type: ignore[no-untyped-def]
    width = values.shape[1]
    flat = values.reshape(-1)
    for start in range(0, width, _SORTED_COLUMNS):
        size = min(_SORTED_COLUMNS, width - start)
        for pair in range(pairs.shape[0]):
            first, second = pairs[pair, 0] * width + start, pairs[pair, 1] * width + start
            low, high = flat[first : first + size], flat[second : second + size]
            # In this form, and not with min and max, the compiler takes many columns at once.
            for i in range(size):
                above, below = low[i], high[i]
                is_wrong = below < above
                low[i] = below if is_wrong else above
                high[i] = above if is_wrong else below
