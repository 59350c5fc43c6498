"""The tensors of a torch file as views of the file, in bounds and apart from each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.errors import TooLarge
from folkmoot.tensors.formats.torch.archive import TorchArchive
from folkmoot.tensors.formats.torch.contents import Namer, named_tensors
from folkmoot.tensors.formats.torch.models import Named
from folkmoot.tensors.formats.torch.views import check_apart, tied
from folkmoot.tensors.formats.torch.writing import Place
from folkmoot.tensors.limits import Limits
from folkmoot.tensors.schema import Schema, StoredTensors, TensorSpec

_MOST_ALIASES = 8


class TorchFile(StoredTensors):
    """The tensors of state_dict(), in its order, as views of the file.

    `trainable` is known of modules and TorchScript. A storage's checksum is compared when it is first asked for.
    """

    def __init__(self, path: Path, limits: Limits, namer: Namer = named_tensors) -> None:
        self._archive = TorchArchive(path, limits)
        self._storages = self._archive.storages()
        named = list(_bounded(namer(self._archive, self._storages, limits), limits))
        self._views = {each.name: each.view for each in named}
        self.schema = Schema(TensorSpec(each.name, each.view.element.name, each.view.shape) for each in named)
        self.trainable = MappingProxyType({each.name: each.trainable for each in named if each.trainable is not None})
        self.parameters = _parameters(named)
        self.tied = tied(self._views)
        self._check_total(limits)
        check_apart(self._views, self._array)

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        view = self._views[name]
        if not view.is_empty:
            self._archive.verify(self._storages[view.storage.key])
        return self._array(name)

    def places(self) -> Iterator[Place]:
        """Yield where each tensor's values are; of tied ones only the first."""
        once = {view.memory: (name, view) for name, view in reversed(self._views.items()) if not view.is_empty}
        for name, view in once.values():
            yield Place(name, view, self._storages[view.storage.key])

    def _array(self, name: str) -> npt.NDArray[Any]:
        view = self._views[name]
        dtype = TensorSpec(name, view.element.name, view.shape).numpy_dtype
        if view.is_empty:
            return np.empty(view.shape, dtype)
        start = self._storages[view.storage.key].data_offset + view.span[0]
        strides = tuple(stride * dtype.itemsize for stride in view.strides)
        return np.ndarray(view.shape, dtype, self._archive.zip.file, start, strides)

    def _check_total(self, limits: Limits) -> None:
        # One storage under many names would make a small file into a large model.
        most = min(limits.max_bytes, _MOST_ALIASES * len(self._archive.zip.file))
        if self.schema.num_bytes > most:
            raise TooLarge(f"the tensors have {self.schema.num_bytes} bytes; at most {most} are taken of this file")


def _parameters(named: list[Named]) -> tuple[str, ...] | None:
    known = all(each.is_parameter is not None for each in named)
    return tuple(each.name for each in named if each.is_parameter) if known else None


def _bounded(named: Iterable[Named], limits: Limits) -> Iterator[Named]:
    for count, tensor in enumerate(named):
        if count == limits.max_tensors:
            raise TooLarge(f"the file has more than {limits.max_tensors} tensors")
        if len(tensor.name) > limits.max_name_length:
            raise TooLarge(f"a tensor's name is longer than {limits.max_name_length} characters")
        yield tensor
