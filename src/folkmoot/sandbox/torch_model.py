"""Modules of torch and TorchScript: loading them, putting weights into them, running them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from folkmoot.errors import InvalidValue, ModelFailed
from folkmoot.sandbox.dropout import dropout_layers, sampling
from folkmoot.sandbox.handing import HandedFile
from folkmoot.sandbox.layer_summary import summarise
from folkmoot.sandbox.libraries import require
from folkmoot.sandbox.numpy_model import check_places
from folkmoot.sandbox.wire import Array
from folkmoot.tensors import Tensors
from folkmoot.tensors.schema import BFLOAT16

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

_MOST_ROWS_AT_ONCE = 256  # what lies between the layers then stays in the cache of most models
_MOST_BYTES_AT_ONCE = 64 << 20


def load_module(file: HandedFile) -> Module:
    """Unpickle a module; the caller has read the file with the stub reader before, and knows every class in it."""
    require("torch")
    import torch

    return module_of(torch.load(file.open(), map_location="cpu", weights_only=False))


def load_script(file: HandedFile) -> Module:
    require("torch")
    import torch

    return module_of(torch.jit.load(file.open(), map_location="cpu"))  # type: ignore[no-untyped-call]


def module_of(loaded: Any) -> Module:
    require("torch")
    import torch

    if not isinstance(loaded, torch.nn.Module):
        raise InvalidValue("what was loaded is no module of torch")
    return loaded


class TorchModel:
    """A module in evaluation mode."""

    def __init__(self, module: Module) -> None:
        self._module = module.eval()
        self._dtype = next((each.dtype for each in module.parameters() if each.dtype.is_floating_point), None)

    def tensor_names(self) -> set[str]:
        return set(self._tensors())

    def use(self, tensors: Tensors) -> None:
        import torch

        places = self._tensors()
        check_places(tensors, {name: tuple(place.shape) for name, place in places.items()})
        with torch.no_grad():
            for name in tensors:
                places[name].copy_(_tensor(np.asarray(tensors[name])))

    def run(self, inputs: Array) -> Array:
        with _evaluating():
            return _array(self._module(self._input(inputs)))

    def run_with_dropout(self, inputs: Array, *, samples: int, seed: int) -> Array:
        layers = dropout_layers(self._module)
        batch = self._input(inputs)
        with _evaluating():
            at_once = _samples_at_once(batch, samples) if self._rows_are_independent(batch) else 1
            with sampling(layers, seed=seed):
                return np.concatenate(list(self._samples(batch, samples, at_once)))

    def parameters(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(parameter.shape) for name, parameter in self._module.named_parameters()}

    def summary(self, shape: tuple[int | None, ...]) -> dict[str, Any] | None:
        with _evaluating():
            return summarise(self._module, shape, self._dtype)

    def _tensors(self) -> dict[str, Tensor]:
        import torch

        return {name: value for name, value in self._module.state_dict().items() if isinstance(value, torch.Tensor)}

    def _input(self, inputs: Array) -> Tensor:
        batch = _tensor(inputs)
        return batch.to(self._dtype) if batch.is_floating_point() and self._dtype else batch

    def _samples(self, batch: Tensor, samples: int, at_once: int) -> Iterator[Array]:
        """Yield arrays of (some samples, rows, ...): the batch goes through several times in one pass."""
        while samples:
            at_once = min(at_once, samples)
            try:
                outputs = _array(self._module(batch.repeat(at_once, *[1] * (batch.ndim - 1)) if at_once > 1 else batch))
            except (MemoryError, RuntimeError):  # torch's allocator raises the latter
                if at_once == 1:
                    raise
                at_once //= 2
                continue
            yield outputs.reshape(at_once, -1, *outputs.shape[1:]) if at_once > 1 else outputs[np.newaxis]
            samples -= at_once

    def _rows_are_independent(self, batch: Tensor) -> bool:
        """Whether more rows change nothing for the others: not so where the first axis is, say, time."""
        if not batch.ndim or not len(batch):
            return False
        few = batch[:2]
        try:
            once, twice = (_array(self._module(each)) for each in (few, few.repeat(2, *[1] * (few.ndim - 1))))
        except Exception:  # a batch of another size is not for every model
            return False
        doubled = np.concatenate([once, once]) if once.ndim else once
        return once.ndim > 0 and twice.shape == doubled.shape and np.allclose(twice, doubled, 1e-3, 1e-5)


def _samples_at_once(batch: Tensor, samples: int) -> int:
    by_bytes = _MOST_BYTES_AT_ONCE // max(batch.nbytes, 1)
    return max(1, min(samples, by_bytes, _MOST_ROWS_AT_ONCE // len(batch)))


@contextmanager
def _evaluating() -> Iterator[None]:
    import torch

    # Without its optimiser: that compiles for the shapes of the first calls, which makes them slow.
    with torch.no_grad(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        yield


def _tensor(array: Array) -> Tensor:
    import torch

    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _array(output: Any) -> Array:
    """The first tensor of what the model answered with."""
    import torch

    while isinstance(output, (list, tuple)) and output:
        output = output[0]
    if not isinstance(output, torch.Tensor) or output.is_complex():
        raise ModelFailed("the model does not answer with a tensor of real numbers")
    tensor = output.detach().to("cpu")
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
