"""The inner loops that everything else is made of, and which of the two that there are is the quicker one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Protocol

from folkmoot.aggregation.arrays import Float64s, Values
from folkmoot.aggregation.numpy_kernels import NumpyKernels

_WORTHWHILE_BYTES = 1 << 24
"""Importing the compiled loops takes as long as going through so many bytes without them."""

log = logging.getLogger(__name__)


class Kernels(Protocol):
    """They let other threads run."""

    def accumulate(self, total: Float64s, values: Sequence[Values], weights: Sequence[float]) -> None:
        """Add each of the values, times its weight, to the total, one after another."""

    def accumulate_deltas(self, total: Float64s, values: Values, base: Float64s, weight: float) -> None:
        """Add the values minus the base, times the weight, to the total."""

    def inner_products(self, values: Sequence[Values], bases: Sequence[Values], products: Float64s) -> None:
        """Add to the lower triangle of `products`, (n, n), those of every two deltas.

        These are the values minus the base, of the same dtype, that is at the same place.
        """

    def mean_products(
        self, values: Sequence[Values], bases: Sequence[Values], shares: Float64s, stretch: int, products: Float64s
    ) -> None:
        """Add to `products`, (n + 1, 2), each delta's inner product with itself, and with the sum of all by `shares`.

        In the last row is that sum's with itself, and nothing. They are summed up `stretch` values at a time.
        """

    def sort_columns(self, values: Values) -> None:
        """Sort each column of `values`, (n, k), in place; there is no negative zero and no NaN among them."""


NUMPY: Kernels = NumpyKernels()


def best_kernels(num_bytes: int) -> Kernels:
    """Those to go through so many bytes of updates with."""
    return (_compiled() or NUMPY) if num_bytes >= _WORTHWHILE_BYTES else NUMPY


@cache
def _compiled() -> Kernels | None:
    try:
        from folkmoot.aggregation.compiled import COMPILED
    except ImportError:
        log.warning("numba is not installed: large models are aggregated at a fraction of the speed that it gives")
        return None
    return COMPILED
