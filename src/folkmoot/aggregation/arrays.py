"""The arrays that values pass through, and adding them up in one order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float64s = npt.NDArray[np.float64]
Values = npt.NDArray[Any]
"""float32 or float64, one dimension, contiguous."""

AT_ONCE_BYTES = 1 << 22
"""How much of all updates together is looked at at once, where one by one will not do."""


def total(values: Float64s) -> float:
    """One after another: how NumPy pairs them when it sums up is its own business, and may change."""
    return float(np.add.accumulate(values)[-1])
