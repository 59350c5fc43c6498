"""Tensors that lie in several places, shown as one mapping; nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.tensors.array_blocks import Block
from folkmoot.tensors.schema import Schema, StoredTensors, Tensors, blocks_of


class Layers(StoredTensors):
    """Each tensor comes from the uppermost of `layers` that has it."""

    def __init__(self, layers: Sequence[Tensors]) -> None:
        specs = {spec.name: (spec, layer) for layer in reversed(layers) for spec in Schema.of(layer)}
        self.schema = Schema(spec for spec, _ in specs.values())
        self._layers = {name: layer for name, (_, layer) in specs.items()}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return np.asarray(self._layers[name][name])

    def blocks(self, name: str) -> Iterator[Block]:
        return blocks_of(self._layers[name], name)


class Selected(StoredTensors):
    """Those of `tensors` that are in `schema`, in its dtypes."""

    def __init__(self, tensors: Tensors, schema: Schema) -> None:
        self.schema = schema
        self._tensors = tensors
        self._dtypes = {spec.name: spec.numpy_dtype for spec in schema}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return np.asarray(self._tensors[name]).astype(self._dtypes[name], copy=False)

    def blocks(self, name: str) -> Iterator[Block]:
        return (block.astype(self._dtypes[name], copy=False) for block in blocks_of(self._tensors, name))
