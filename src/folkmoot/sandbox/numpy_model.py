"""A function that computes with NumPy from named weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from folkmoot.errors import InvalidValue, SchemaMismatch
from folkmoot.sandbox.wire import Array
from folkmoot.tensors import Schema, Tensors
from folkmoot.tensors.schema import is_float


class NumpyModel:
    """`predict(weights, inputs)`, with the tensors of a template as its first weights."""

    def __init__(self, predict: Callable[[Tensors, Array], Any], tensors: Tensors) -> None:
        self._predict = predict
        self._weights = _Weights({name: np.asarray(tensors[name]) for name in tensors})

    def use(self, tensors: Tensors) -> None:
        check_places(tensors, {name: array.shape for name, array in self._weights.items()})
        for name in tensors:
            self._weights[name] = np.asarray(tensors[name]).astype(self._weights[name].dtype, copy=False)

    def run(self, inputs: Array) -> Array:
        return np.asarray(self._predict(self._weights, inputs))

    def run_with_dropout(self, inputs: Array, *, samples: int, seed: int) -> Array:
        raise no_dropout("a model in NumPy")

    def parameters(self) -> Mapping[str, tuple[int, ...]]:
        return float_tensors(self._weights)

    def summary(self, shape: tuple[int | None, ...]) -> None:
        return None


class _Weights(dict[str, Array]):
    def __missing__(self, name: str) -> Array:
        raise SchemaMismatch(f"the weights do not fit the architecture: {name} is missing")


def float_tensors(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    """What counts as a parameter where a format does not tell."""
    return {spec.name: spec.shape for spec in Schema.of(tensors) if is_float(spec.numpy_dtype)}


def check_places(tensors: Tensors, places: Mapping[str, tuple[int, ...]]) -> None:
    """Raise SchemaMismatch unless each of `tensors` has a place of its shape."""
    for spec in Schema.of(tensors):
        if spec.name not in places:
            raise SchemaMismatch(f"the weights do not fit the model: {spec.name} is not in it")
        if spec.shape != places[spec.name]:
            expected = places[spec.name]
            raise SchemaMismatch(f"the weights do not fit the model: {spec.name} is {spec.shape}, expected {expected}")


def no_dropout(what: str) -> InvalidValue:
    return InvalidValue(f"{what} has no dropout layer that could be switched to sampling, which MC_DROPOUT needs")
