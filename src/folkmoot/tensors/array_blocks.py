"""Walking over an array of any layout in small contiguous pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Block = npt.NDArray[Any]

BLOCK_ELEMENTS = 1 << 18


def array_blocks(array: npt.NDArray[Any], dtype: np.dtype[Any], elements: int = BLOCK_ELEMENTS) -> Iterator[Block]:
    """Yield the elements of `array` in C order, as contiguous arrays of `dtype`; only such pieces are copied."""
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    for start in range(0, array.size, elements):
        yield np.ascontiguousarray(flat[start : start + elements], dtype)
