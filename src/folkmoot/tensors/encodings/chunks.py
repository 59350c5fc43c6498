"""The arithmetic of an encoding, on one chunk of a tensor at a time and in float64.

Sources: rounded updates after Konečný et al. 2016, https://arxiv.org/abs/1610.05492, here to nearest instead of at
random, so that equal input gives equal bytes; scales per block after Dettmers et al. 2022,
https://arxiv.org/abs/2110.02861; top-k after Stich et al. 2018, https://arxiv.org/abs/1809.07599, whose contraction
holds for each chunk and thereby for all of them together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidFile, NonFinite
from folkmoot.tensors.encodings.layout import Layout, largest_magnitude
from folkmoot.tensors.schema import DTYPES

Float64s = npt.NDArray[np.float64]

_LEVELS = 127
# The smallest normal number. Below it a scale would be too coarse itself, and 0 could not be divided by.
_LEAST_SCALE = np.finfo(np.float32).tiny


class Parts(NamedTuple):
    """What the file holds of a chunk; `scales` and `indices` are None where the encoding has none."""

    values: npt.NDArray[Any]
    scales: npt.NDArray[np.float32] | None = None
    indices: npt.NDArray[np.uint16] | None = None


def pack(chunk: Float64s, layout: Layout) -> Parts:
    """Encode finite numbers of at most `layout.largest()`.

    With u = 2^-11 for float16 and 2^-8 for bfloat16, x becomes a number no further away than u |x|, or than 2^-25 and
    2^-134 where that is more. With int8 and the block's largest magnitude m it is no further than m (1 + 2^-23) / 254,
    or 2^-127. Top-k leaves 0 for what is not among the largest; of equal ones the first are taken.
    """
    indices = None
    if layout.encoding.top_k is not None:
        indices = _largest(chunk, layout.kept(chunk.size))
        chunk = chunk[indices]
    if layout.encoding.values == "int8":
        return Parts(*_quantise(chunk, layout.encoding.block), indices)
    return Parts(chunk.astype(DTYPES[layout.values_dtype]), None, indices)


def unpack(parts: Parts, size: int, layout: Layout) -> Float64s:
    """The `size` numbers that `parts` stand for; raises InvalidFile or NonFinite for what `pack` cannot have made."""
    values = _values(parts, layout)
    if parts.indices is None:
        return values
    _check_indices(parts.indices, size, layout)
    chunk = np.zeros(size)
    chunk[parts.indices] = values
    return chunk


def saturated(values: Float64s, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Round to a float dtype, what is beyond its range to its largest number: finite updates stay finite."""
    largest = largest_magnitude(dtype)
    return np.clip(values, -largest, largest).astype(dtype)


def _largest(chunk: Float64s, count: int) -> npt.NDArray[np.uint16]:
    magnitudes = np.abs(chunk)
    # By value and not by place: which of two equal ones argpartition takes depends on the processor.
    threshold = np.partition(magnitudes, chunk.size - count)[chunk.size - count]
    above = np.flatnonzero(magnitudes > threshold)
    equal = np.flatnonzero(magnitudes == threshold)[: count - above.size]
    return np.sort(np.concatenate([above, equal])).astype(np.uint16)


def _quantise(values: Float64s, block: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    padded = np.zeros(-(-values.size // block) * block)
    padded[: values.size] = values
    blocks = padded.reshape(-1, block)
    scales = np.maximum(np.abs(blocks).max(axis=1) / _LEVELS, _LEAST_SCALE).astype(np.float32)
    blocks /= scales[:, np.newaxis]
    return np.rint(padded, out=padded)[: values.size].astype(np.int8), scales


def _values(parts: Parts, layout: Layout) -> Float64s:
    with np.errstate(invalid="ignore"):  # some kinds of NaN; all are found below
        values = parts.values.astype(np.float64)
    if parts.scales is not None:
        if not (np.isfinite(parts.scales) & (parts.scales >= 0)).all():
            raise InvalidFile(f"tensor {layout.spec.name} has a scale that is negative or not finite")
        values *= np.repeat(parts.scales.astype(np.float64), layout.encoding.block)[: values.size]
    elif not np.isfinite(values).all():
        raise NonFinite(f"{layout.spec.name} holds {values[np.isfinite(values).argmin()]}")
    return values


def _check_indices(indices: npt.NDArray[np.uint16], size: int, layout: Layout) -> None:
    if indices[-1] >= size or (indices[1:] <= indices[:-1]).any():
        raise InvalidFile(f"tensor {layout.spec.name} has indices that do not grow or lie beyond its end")
