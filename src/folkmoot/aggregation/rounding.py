"""From float64 back to a model's dtypes, and whole numbers as the distances from what they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.aggregation.arrays import Array, Float64s
from folkmoot.tensors.schema import BFLOAT16

_EXACT = float(1 << 62)


def round_to(values: Float64s, dtype: np.dtype[Any]) -> Array:
    """Round to a dtype of floats, once, into an array of its own."""
    return _to_float32_odd(values).astype(dtype) if dtype == BFLOAT16 else values.astype(dtype)


def _to_float32_odd(values: Float64s) -> npt.NDArray[np.float32]:
    """Round towards zero, with the last bit set if anything was lost: what is rounded from there is rounded once.

    Source: Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums", https://doi.org/10.1109/TC.2007.70819
    """
    single = values.astype(np.float32)
    wide = single.astype(np.float64)
    bits = single.view(np.uint32)
    bits -= np.abs(wide) > np.abs(values)
    bits |= wide != values
    return single


def distance(values: Array, base: Array) -> Float64s:
    """How far whole numbers, or truth values, are from the base; exact below 2^53, which float64 cannot exceed."""
    if values.dtype.kind == "b":
        return _as_ones(values) - _as_ones(base)
    rough: Float64s = values.astype(np.float64) - base.astype(np.float64)
    if values.itemsize < 8:
        return rough
    exact = values.view(np.int64) - base.view(np.int64)
    return np.where(np.abs(rough) < _EXACT, exact, rough)


def moved(base: Array, by: Float64s) -> Array:
    """The base and the nearest whole number to `by`, halves to even; within the range of its dtype."""
    steps = np.rint(by)
    if base.dtype.kind == "b":
        moved_truth: Array = _as_ones(base) + steps > 0
        return moved_truth
    rough = base.astype(np.float64) + steps
    limits = np.iinfo(base.dtype)
    highest = np.float64(limits.max)
    if int(highest) > limits.max:
        highest = np.nextafter(highest, 0)
    clipped = np.clip(rough, limits.min, highest)
    if base.itemsize < 8:
        return clipped.astype(base.dtype)
    # Float64 cannot tell neighbours so large apart; whole numbers can.
    near = (np.abs(steps) < _EXACT) & ((clipped == rough) | (steps == 0))
    exact = base.view(np.int64) + np.where(near, steps, 0).astype(np.int64)
    return np.where(near, exact.view(base.dtype), clipped.astype(base.dtype))


def _as_ones(truth: Array) -> Float64s:
    """Any byte but 0 is true, and files may hold any."""
    ones: Float64s = (truth.view(np.uint8) != 0).astype(np.float64)
    return ones
