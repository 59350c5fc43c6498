"""The inner loops of numpy_kernels.py, compiled with numba: the same bits, several times as fast. Needs numba."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import carray, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.extending import intrinsic

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

_SUMMED_COLUMNS = 2048
"""How many columns are added up at once: so many sums stay in the first-level cache."""


class _CompiledKernels:
    def accumulate(self, total: Float64s, values: Sequence[Values], weights: Sequence[float]) -> None:
        like = values[0][:0]
        _accumulate(total, _addresses(values), np.array(weights), like)

    def accumulate_deltas(self, total: Float64s, values: Values, base: Float64s, weight: float) -> None:
        _accumulate_deltas(total, _readonly(values), base, weight)

    def inner_products(self, values: Sequence[Values], bases: Sequence[Values], products: Float64s) -> None:
        _inner_products(_addresses(values), _addresses(bases), values[0][:0], len(values[0]), products)

    def mean_products(
        self, values: Sequence[Values], bases: Sequence[Values], shares: Float64s, stretch: int, products: Float64s
    ) -> None:
        rows, of_bases, like, count = _addresses(values), _addresses(bases), values[0][:0], len(values[0])
        for first in range(0, count, stretch):
            offset, size = first * like.itemsize, min(stretch, count - first)
            _mean_products(rows + offset, of_bases + offset, shares, like, size, products)

    def sort_columns(self, values: Values) -> None:
        _sort_columns(values, _comparator_array(len(values)))


COMPILED = _CompiledKernels()


def _readonly(values: Values) -> Values:
    """What is mapped into memory is, and one compiled loop is to serve all."""
    if values.flags.writeable:
        values = values.view()
        values.flags.writeable = False
    return values


def _addresses(rows: Sequence[Values]) -> npt.NDArray[np.intp]:
    """As the compiled loops see them; NumPy takes three times as long to tell."""
    return np.array([_address(row) for row in rows], np.intp)


@cache
def _comparator_array(count: int) -> npt.NDArray[np.int64]:
    return np.array(comparators(count), np.int64).reshape(-1, 2)


# Rows that lie anywhere are handed over by their addresses: compiled loops take no sequence of arrays.


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.intp), generate


@_compile
def _address(values):  # type: ignore[no-untyped-def]
    return values.ctypes.data


@_compile
def _stretch(address, like, first, size):  # type: ignore[no-untyped-def]
    return carray(_pointer(address + first * like.itemsize), (size,), like.dtype)  # type: ignore[call-arg]


@_compile
def _accumulate(total, values, weights, like):  # type: ignore[no-untyped-def]
    for first in range(0, total.size, _SUMMED_COLUMNS):
        size = min(_SUMMED_COLUMNS, total.size - first)
        sums = total[first : first + size]
        fours = values.size // 4 * 4
        for row in range(0, fours, 4):
            a, b = _stretch(values[row], like, first, size), _stretch(values[row + 1], like, first, size)
            c, d = _stretch(values[row + 2], like, first, size), _stretch(values[row + 3], like, first, size)
            of_a, of_b, of_c, of_d = weights[row], weights[row + 1], weights[row + 2], weights[row + 3]
            for i in range(size):
                so_far = sums[i] + np.float64(a[i]) * of_a
                so_far = so_far + np.float64(b[i]) * of_b
                so_far = so_far + np.float64(c[i]) * of_c
                sums[i] = so_far + np.float64(d[i]) * of_d
        for row in range(fours, values.size):
            some, weight = _stretch(values[row], like, first, size), weights[row]
            for i in range(size):
                sums[i] += np.float64(some[i]) * weight


@_compile
def _accumulate_deltas(total, values, base, weight):  # type: ignore[no-untyped-def]
    for i in range(total.size):
        total[i] += (np.float64(values[i]) - base[i]) * weight


# A loop over lanes around one over what is added up in each, and as few of these as the compiler will unroll: in this
# form it takes many lanes at once, and the sums stay in registers.


@_compile
def _inner_products(values, bases, like, count, products):  # type: ignore[no-untyped-def]
    n = values.size
    deltas = np.zeros((n + n % 2) * COLUMNS)
    lanes = np.empty(4 * LANES)
    for first in range(0, count, COLUMNS):
        size = min(COLUMNS, count - first)
        for row in range(n):
            delta = _row(deltas, row)
            some, base = _stretch(values[row], like, first, size), _stretch(bases[row], like, first, size)
            for i in range(size):
                delta[i] = np.float64(some[i]) - np.float64(base[i])
            delta[size:] = 0.0
        for row in range(0, n, 2):
            a, b = _row(deltas, row), _row(deltas, row + 1)
            for column in range(0, row + 1, 2):
                _four_products(a, b, _row(deltas, column), _row(deltas, column + 1), lanes)
                for pair in range(4):
                    first_of_pair, second = row + pair // 2, column + pair % 2
                    if second <= first_of_pair < n:
                        products[first_of_pair, second] += _sum(lanes[pair * LANES : (pair + 1) * LANES])


@_compile
def _row(rows, number):  # type: ignore[no-untyped-def]
    return rows[number * COLUMNS : (number + 1) * COLUMNS]


@_compile
def _four_products(a, b, c, d, lanes):  # type: ignore[no-untyped-def]
    for lane in range(LANES):
        ac = ad = bc = bd = 0.0
        for i in range(lane, lane + COLUMNS, LANES):
            ac += a[i] * c[i]
            ad += a[i] * d[i]
            bc += b[i] * c[i]
            bd += b[i] * d[i]
        lanes[lane], lanes[LANES + lane] = ac, ad
        lanes[2 * LANES + lane], lanes[3 * LANES + lane] = bc, bd


@_compile
def _mean_products(values, bases, shares, like, count, products):  # type: ignore[no-untyped-def]
    n = values.size
    lanes = np.zeros((n + 1, 2, LANES))
    mean, zeros = np.empty(COLUMNS), np.zeros(COLUMNS)
    for first in range(0, count, COLUMNS):
        size = min(COLUMNS, count - first)
        mean[:] = 0.0
        for row in range(n):
            some, base = _stretch(values[row], like, first, size), _stretch(bases[row], like, first, size)
            share = shares[row]
            for i in range(size):
                mean[i] += (np.float64(some[i]) - np.float64(base[i])) * share
        for row in range(n):
            some, base = _stretch(values[row], like, first, size), _stretch(bases[row], like, first, size)
            _add_products(some, base, mean, lanes[row, 0], lanes[row, 1])
        _add_products(mean[:size], zeros, zeros, lanes[n, 0], lanes[n, 1])
    for row in range(n + 1):
        products[row, 0] += _sum(lanes[row, 0])
        products[row, 1] += _sum(lanes[row, 1])


@_compile
def _add_products(values, base, other, squares, products):  # type: ignore[no-untyped-def]
    if values.size < COLUMNS:
        for i in range(values.size):
            delta = np.float64(values[i]) - np.float64(base[i])
            squares[i % LANES] += delta * delta
            products[i % LANES] += delta * other[i]
        return
    for lane in range(LANES):
        square, product = squares[lane], products[lane]
        for i in range(lane, lane + COLUMNS, LANES):
            delta = np.float64(values[i]) - np.float64(base[i])
            square += delta * delta
            product += delta * other[i]
        squares[lane], products[lane] = square, product


@_compile
def _sum(lanes):  # type: ignore[no-untyped-def]
    # A loop for each halving: one for all of them, of unknown lengths, takes as long as the products do.
    for lane in range(32):
        lanes[lane] += lanes[32 + lane]
    for lane in range(16):
        lanes[lane] += lanes[16 + lane]
    for lane in range(8):
        lanes[lane] += lanes[8 + lane]
    for lane in range(4):
        lanes[lane] += lanes[4 + lane]
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])


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
