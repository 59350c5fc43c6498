"""The check that a model or an update holds no NaN and no infinity."""

from __future__ import annotations

import numpy as np

from folkmoot.errors import NonFinite
from folkmoot.tensors.array_blocks import BLOCK_ELEMENTS, array_blocks
from folkmoot.tensors.schema import Tensors, is_float


def check_finite(tensors: Tensors) -> None:
    """Raise NonFinite, naming the tensor and the place, if a value is NaN or infinite; reads block by block."""
    for name, tensor in tensors.items():
        array = np.asarray(tensor)
        if not is_float(array.dtype):
            continue
        for number, block in enumerate(array_blocks(array, array.dtype)):
            finite = np.isfinite(block)
            if not finite.all():
                place = int(finite.argmin())
                index = np.unravel_index(number * BLOCK_ELEMENTS + place, array.shape)
                where = ", ".join(str(i) for i in index)
                raise NonFinite(f"{name} holds {block[place]} at [{where}]")
