"""Reading a safetensors file where Folkmoot is not installed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[np.float32]]


def read_arrays(path: str) -> Arrays:
    """Return the tensors, which must be float32, as arrays of their own."""
    content = np.fromfile(path, np.uint8)
    start = 8 + int(content[:8].view(np.uint64)[0])
    header: dict[str, Any] = json.loads(content[8:start].tobytes())
    return {
        name: content[start + spec["data_offsets"][0] : start + spec["data_offsets"][1]].view(np.float32)
        for name, spec in header.items()
    }


def mean_of(arrays: Iterable[npt.NDArray[np.float32]]) -> float:
    """The mean of the absolute values, by which the contenders' models are compared."""
    total, size = 0.0, 0
    for array in arrays:
        flat = array.reshape(-1)
        size += flat.size
        for start in range(0, flat.size, 1 << 18):  # in pieces: a contender's memory is being watched
            total += float(np.abs(flat[start : start + (1 << 18)]).sum(dtype=np.float64))
    return total / size
