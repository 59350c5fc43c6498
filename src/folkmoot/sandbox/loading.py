"""From the files that were handed over to a model that can be asked. Only a confined process comes here."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from folkmoot.errors import InvalidValue, SchemaMismatch
from folkmoot.sandbox.architectures import architecture_names, computes_with_numpy, find_architecture
from folkmoot.sandbox.handing import HandedFile
from folkmoot.sandbox.model import Sampling
from folkmoot.sandbox.numpy_model import NumpyModel
from folkmoot.sandbox.onnx_model import OnnxModel
from folkmoot.sandbox.torch_model import TorchModel, load_module, load_script, module_of
from folkmoot.sandbox.wire import Array
from folkmoot.tensors import Limits, Tensors, open_tensors, recognise
from folkmoot.tensors.formats.torch.archive import TorchArchive
from folkmoot.tensors.formats.torch.format import check_module
from folkmoot.tensors.limits import TRUSTED
from folkmoot.tensors.schema import StoredTensors
from folkmoot.uncertainty import swag

Files = dict[str, list[HandedFile]]


class Predictor(Protocol):
    """What every kind of model can do; `NumpyModel` is the simplest."""

    def use(self, tensors: Tensors) -> None:
        """Put these tensors in the place of those of the same names; raises SchemaMismatch."""

    def run(self, inputs: Array) -> Array:
        """One pass, in evaluation mode."""

    def run_with_dropout(self, inputs: Array, *, samples: int, seed: int) -> Array:
        """Shape (samples, rows, ...); raises InvalidValue for a model without dropout."""

    def parameters(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes, in the order in which flat vectors hold them."""

    def summary(self, shape: tuple[int | None, ...]) -> dict[str, Any] | None:
        """None where it cannot be made."""


class LoadedModel:
    """A predictor, with the weights that take turns in it."""

    def __init__(
        self,
        predictor: Predictor,
        weights: list[StoredTensors],
        moments: StoredTensors | None,
        preprocessing: Predictor | None,
    ) -> None:
        self._predictor = predictor
        self._weights = weights
        self._moments = moments
        self._preprocessing = preprocessing
        self._in_use: int | None = None
        self._use(0)

    def predict(self, inputs: Array, sampling: Sampling) -> Array:
        """Shape (members, rows, ...)."""
        match sampling.method:
            case "SWAG":
                members = np.stack([_floats(each) for each in self._drawn(inputs, sampling)])
            case "MC_DROPOUT":
                members = np.concatenate([_floats(each) for each in self._dropped_out(inputs, sampling)])
            case _:
                members = np.stack([_floats(self._predictor.run(inputs)) for _ in self._each_member()])
        return members

    def preprocess(self, inputs: Array) -> Array:
        if self._preprocessing is None:
            raise InvalidValue("the model has no preprocessing module")
        return self._preprocessing.run(inputs)

    def summary(self, shape: tuple[int | None, ...]) -> dict[str, Any] | None:
        return self._predictor.summary(shape)

    def _each_member(self) -> Iterator[None]:
        for number in range(len(self._weights)):
            self._use(number)
            yield

    def _dropped_out(self, inputs: Array, sampling: Sampling) -> Iterator[Array]:
        for number, _ in enumerate(self._each_member()):
            # Members have masks of their own.
            seed = sampling.seed + number
            yield self._predictor.run_with_dropout(inputs, samples=sampling.samples, seed=seed)

    def _drawn(self, inputs: Array, sampling: Sampling) -> Iterator[Array]:
        if self._moments is None:
            raise InvalidValue("the model has no moments, which SWAG needs")
        self._use(0)
        self._in_use = None
        first, second = self._moments["first_moment"], self._moments["second_moment"]
        for flat in swag.draw(first, second, members=sampling.samples, seed=sampling.seed):
            self._predictor.use(_cut(flat, self._predictor.parameters()))
            yield self._predictor.run(inputs)

    def _use(self, number: int) -> None:
        if self._in_use != number:
            self._in_use = None
            self._predictor.use(self._weights[number])
            self._in_use = number


def load(files: Files, architecture: str | None, torch_classes: Collection[str]) -> LoadedModel:
    """Raises InvalidFile, UnknownClass, SchemaMismatch, InvalidValue, NotInstalled; what a module raises itself."""
    limits = replace(TRUSTED, torch_classes=frozenset(torch_classes))
    template = files["template"][0]
    tensors = open_tensors(template, limits=limits)
    weights = [open_tensors(file, limits=limits) for file in files.get("weights", ())] or [tensors]
    moments = [open_tensors(file, limits=limits) for file in files.get("moments", ())]
    preprocessing = [_torch_model(file, limits) for file in files.get("preprocessing", ())]
    predictor = _predictor(template, tensors, architecture, limits)
    return LoadedModel(predictor, weights, next(iter(moments), None), next(iter(preprocessing), None))


def _predictor(template: HandedFile, tensors: StoredTensors, architecture: str | None, limits: Limits) -> Predictor:
    kind = recognise(template).NAME
    if kind == "onnx":
        return OnnxModel(template)
    # A module knows its parameters; a state_dict does not tell them from buffers.
    if kind == "torch" and tensors.parameters is not None:
        return _torch_model(template, limits)
    if architecture is None:
        known = ", ".join(architecture_names())
        raise InvalidValue(f"the file holds weights alone, and their architecture has to be named, one of: {known}")
    return _built(find_architecture(architecture), architecture, tensors)


def _built(make: Any, name: str, tensors: StoredTensors) -> Predictor:
    if computes_with_numpy(make):
        return NumpyModel(make, tensors)
    model = TorchModel(module_of(make()))
    missing = sorted(model.tensor_names() - set(tensors))
    if missing:
        raise SchemaMismatch(f"the weights do not fit the architecture {name}: {missing[0]} is missing")
    return model


def _torch_model(file: HandedFile, limits: Limits) -> TorchModel:
    # The stub reader first: of what it does not know, or the operator does not list, nothing is ever imported.
    check_module(file, limits)
    return TorchModel(load_script(file) if TorchArchive(file, limits).is_script else load_module(file))


def _cut(flat: Array, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """The tensors that lie in a flat vector one after the other."""
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    if flat.size != ends[-1]:
        raise SchemaMismatch(f"the moments have {flat.size} values; the model has {ends[-1]} parameters")
    pieces = np.split(flat, ends[:-1])
    return {name: piece.reshape(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def _floats(outputs: Array) -> Array:
    if outputs.dtype in (np.float32, np.float64):
        return outputs
    return outputs.astype(np.float32 if outputs.dtype == np.float16 else np.float64)
