"""How the tensors of an update lie in an encoded file, which is a safetensors file with parts for tensors.

A tensor `layer.bias` is either there as it is, in the part `exact/layer.bias`, or in flat parts for its values and,
depending on the encoding, for the scales of int8 and for the places of what top-k has chosen. The sizes of all parts
follow from the tensor's own dtype and shape and the encoding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from folkmoot.tensors.encodings.encoding import Encoding
from folkmoot.tensors.schema import DTYPES, TensorSpec

CHUNK_ELEMENTS = 1 << 16
"""Stretches of a tensor that are encoded on their own: small in memory, with places that fit in 16 bits."""

EXACT, VALUES, SCALES, INDICES = "exact", "values", "scales", "indices"
_DTYPES = {"float16": "F16", "bfloat16": "BF16", "int8": "I8"}


@dataclass(frozen=True)
class Layout:
    """Where one tensor is: as it is, or encoded."""

    spec: TensorSpec
    encoding: Encoding
    is_exact: bool

    @property
    def values_dtype(self) -> str:
        """Half precision is for what has more: a tensor of 16 bits keeps its own dtype."""
        wanted = _DTYPES.get(self.encoding.values, self.spec.dtype)
        return wanted if DTYPES[wanted].itemsize < self.spec.numpy_dtype.itemsize else self.spec.dtype

    def kept(self, num_elements: int) -> int:
        """How many values of a chunk with so many elements are in the file."""
        return num_elements if self.encoding.top_k is None else math.ceil(self.encoding.top_k * num_elements)

    def scales(self, num_elements: int) -> int:
        """How many scales a chunk with so many elements has."""
        return -(-self.kept(num_elements) // self.encoding.block)

    def largest(self) -> float:
        """The largest magnitude that every dtype on the way can hold."""
        reach = "F32" if self.encoding.values == "int8" else self.values_dtype
        return min(largest_magnitude(DTYPES[reach]), largest_magnitude(self.spec.numpy_dtype))

    def parts(self) -> Iterator[TensorSpec]:
        """What the file holds of this tensor, in the order in which we write it."""
        if self.is_exact:
            yield TensorSpec(f"{EXACT}/{self.spec.name}", self.spec.dtype, self.spec.shape)
            return
        yield self._part(VALUES, self.values_dtype, self.kept)
        if self.encoding.values == "int8":
            yield self._part(SCALES, "F32", self.scales)
        if self.encoding.top_k is not None:
            yield self._part(INDICES, "U16", self.kept)

    def _part(self, role: str, dtype: str, in_chunk: Callable[[int], int]) -> TensorSpec:
        full, rest = divmod(self.spec.num_elements, CHUNK_ELEMENTS)
        return TensorSpec(f"{role}/{self.spec.name}", dtype, (full * in_chunk(CHUNK_ELEMENTS) + in_chunk(rest),))

    def chunk_sizes(self) -> Iterator[int]:
        for start in range(0, self.spec.num_elements, CHUNK_ELEMENTS):
            yield min(CHUNK_ELEMENTS, self.spec.num_elements - start)


def largest_magnitude(dtype: np.dtype[Any]) -> float:
    """Of a float dtype, bfloat16 included."""
    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
