"""The check that a model or an update holds no NaN and no infinity."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from folkmoot.errors import NonFinite
from folkmoot.tensors.array_blocks import Block
from folkmoot.tensors.schema import Schema, Tensors, TensorSpec, blocks_of, is_float


def check_finite(tensors: Tensors) -> None:
    """Raise NonFinite, naming the tensor and the place, if a value is NaN or infinite; reads block by block."""
    for _ in finite_blocks(tensors):
        pass


def finite_blocks(tensors: Tensors) -> Iterator[Block]:
    """Yield the values of all tensors as `blocks_of` does, in canonical order; raises NonFinite before a bad block."""
    for spec in Schema.of(tensors):
        position = 0
        for block in blocks_of(tensors, spec.name):
            if is_float(spec.numpy_dtype):
                _check(block, spec, position)
            position += block.size
            yield block


def _check(block: Block, spec: TensorSpec, position: int) -> None:
    finite = np.isfinite(block)
    if not finite.all():
        place = int(finite.argmin())
        where = ", ".join(str(i) for i in np.unravel_index(position + place, spec.shape))
        raise NonFinite(f"{spec.name} holds {block[place]} at [{where}]")
