"""torch: the zip archives of torch.save (since torch 1.6) and torch.jit.save; nothing in them is run.

A file holds a state_dict, a whole nn.Module or TorchScript. Its tensors are views of storages, and each storage
is a member of the archive, stored as it is, so that reading maps it and writing replaces its bytes in a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidFile, TooLarge
from folkmoot.tensors.formats import torch_export, torch_writing
from folkmoot.tensors.formats.pickle_reader import Dictionary, Instance, read_pickle
from folkmoot.tensors.formats.torch_archive import TorchArchive
from folkmoot.tensors.formats.torch_models import Named, Walk, describe, of_state_dict, parts_of_module
from folkmoot.tensors.formats.torch_pickle import SavedVocabulary, ScriptVocabulary
from folkmoot.tensors.formats.torch_script import declared_in, parts_of_script
from folkmoot.tensors.formats.torch_views import TensorView, check_apart, tied
from folkmoot.tensors.formats.zip_archive import Member
from folkmoot.tensors.limits import TRUSTED, Limits
from folkmoot.tensors.schema import Schema, StoredTensors, Tensors, TensorSpec, check_fits
from folkmoot.tensors.tensor_file import WrittenFile
from folkmoot.tensors.tied import check_tied

NAME = "torch"
EXTENSION = ".pt"

_LOCAL_HEADER_BYTES = 30
_MOST_ALIASES = 8


def recognise(head: bytes) -> bool:
    """Any zip archive: those of NumPy are asked for before, and reading says why another is none of torch's."""
    return head.startswith(b"PK\x03\x04") and len(head) > _LOCAL_HEADER_BYTES


def read(path: Path, limits: Limits) -> TorchFile:
    return TorchFile(path, limits)


def write(template: Path, tensors: Tensors, output: Path) -> WrittenFile:
    """Copy the template with other values in its storages; what belongs to no tensor stays as it is.

    Raises SchemaMismatch also where tensors that are one in the template are to become different.
    """
    original = TorchFile(template, TRUSTED)
    check_fits(original.schema, Schema.of(tensors), what="checkpoint")
    check_tied(tensors, original.tied, what="checkpoint")
    return torch_writing.write_copy(template, original.places(), tensors, output)


def export(tensors: Tensors, output: Path) -> WrittenFile:
    """Write a state_dict that torch.load(weights_only=True) opens, its tensors in the order of `tensors`."""
    return torch_export.write_state_dict(tensors, output)


def check_module(path: Path, limits: Limits) -> None:
    """Raise InvalidFile unless the file is a module or TorchScript; it need not have parameters."""
    TorchFile(path, limits, _module_tensors)


def read_tensor(path: Path, limits: Limits) -> TorchFile:
    """Open a file in which torch has saved one tensor by itself; raises InvalidFile where it holds anything else."""
    return TorchFile(path, limits, _bare_tensor)


Namer = Callable[[TorchArchive, Mapping[str, Member], Limits], Iterator[Named]]
"""Finds the tensors of what an archive holds, and their names."""


def export_tensor(tensor: npt.NDArray[Any], output: Path) -> WrittenFile:
    """Write one tensor by itself, as torch.save would; equal input gives equal bytes."""
    return torch_export.write_tensor(tensor, output)


class TorchFile(StoredTensors):
    """The tensors of state_dict(), in its order, as views of the file.

    `trainable` is known of modules and TorchScript. A storage's checksum is compared when it is first asked for.
    """

    def __init__(self, path: Path, limits: Limits, namer: Namer | None = None) -> None:
        self._archive = TorchArchive(path, limits)
        self._storages = self._archive.storages()
        named = list(_bounded((namer or _named_tensors)(self._archive, self._storages, limits), limits))
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

    def places(self) -> Iterator[torch_writing.Place]:
        """Yield where each tensor's values are; of tied ones only the first."""
        once = {view.memory: (name, view) for name, view in reversed(self._views.items()) if not view.is_empty}
        for name, view in once.values():
            yield torch_writing.Place(name, view, self._storages[view.storage.key])

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


def _named_tensors(archive: TorchArchive, storages: Mapping[str, Member], limits: Limits) -> Iterator[Named]:
    """Choose by what the file holds how its tensors are named."""
    if archive.is_script:
        return _script_tensors(archive, storages, limits)
    saved = _saved(archive, storages, limits)
    if isinstance(saved, Dictionary):
        return of_state_dict(saved)
    if isinstance(saved, Instance):
        return Walk(parts_of_module, limits).visit(saved)
    raise InvalidFile(f"the file holds {describe(saved)}; expected a state_dict, a module or TorchScript")


def _module_tensors(archive: TorchArchive, storages: Mapping[str, Member], limits: Limits) -> Iterator[Named]:
    if archive.is_script:
        return _script_walk(archive, storages, limits)
    saved = _saved(archive, storages, limits)
    if not isinstance(saved, Instance):
        raise InvalidFile(f"the file holds {describe(saved)}; expected a module or TorchScript")
    return Walk(parts_of_module, limits).visit(saved)


def _bare_tensor(archive: TorchArchive, storages: Mapping[str, Member], limits: Limits) -> Iterator[Named]:
    saved = None if archive.is_script else _saved(archive, storages, limits)
    if not isinstance(saved, TensorView):
        held = "TorchScript" if archive.is_script else describe(saved)
        raise InvalidFile(f"the file holds {held}; expected one tensor by itself")
    yield Named("tensor", saved, None)


def _saved(archive: TorchArchive, storages: Mapping[str, Member], limits: Limits) -> object:
    return read_pickle(archive.content("data.pkl"), SavedVocabulary(storages, limits.torch_classes), limits)


def _script_walk(archive: TorchArchive, storages: Mapping[str, Member], limits: Limits) -> Iterator[Named]:
    vocabulary = ScriptVocabulary(storages)
    saved = read_pickle(archive.content("data.pkl"), vocabulary, limits)
    if not isinstance(saved, Instance):
        raise InvalidFile(f"the TorchScript file holds {describe(saved)}; expected a module")
    declared = declared_in(archive.sources(), vocabulary.classes, limits)
    return Walk(partial(parts_of_script, declared=declared), limits).visit(saved)


def _script_tensors(archive: TorchArchive, storages: Mapping[str, Member], limits: Limits) -> Iterator[Named]:
    tensors = _script_walk(archive, storages, limits)
    first = next(tensors, None)
    if first is None:
        raise InvalidFile(
            "the TorchScript holds no parameters: torch.jit.freeze and torch.jit.optimize_for_inference make constants "
            "of them; save the module as it was before"
        )
    return chain([first], tensors)
