"""What a torch archive holds, and how its tensors are named: a state_dict, a module, TorchScript, one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain

from folkmoot.errors import InvalidFile
from folkmoot.tensors.formats.pickle_reader import read_pickle
from folkmoot.tensors.formats.pickle_values import Dictionary, Instance
from folkmoot.tensors.formats.torch.archive import TorchArchive
from folkmoot.tensors.formats.torch.models import Named, Walk, describe, of_state_dict, parts_of_module
from folkmoot.tensors.formats.torch.script import declared_in, parts_of_script
from folkmoot.tensors.formats.torch.views import TensorView
from folkmoot.tensors.formats.torch.vocabulary import SavedVocabulary, ScriptVocabulary
from folkmoot.tensors.formats.zip_archive import Member
from folkmoot.tensors.limits import Limits

Namer = Callable[[TorchArchive, Mapping[str, Member], Limits], Iterator[Named]]
"""Finds the tensors of what an archive holds, and their names."""


def named_tensors(archive: TorchArchive, storages: Mapping[str, Member], limits: Limits) -> Iterator[Named]:
    """Choose by what the file holds how its tensors are named."""
    if archive.is_script:
        return _script_tensors(archive, storages, limits)
    saved = _saved(archive, storages, limits)
    if isinstance(saved, Dictionary):
        return of_state_dict(saved)
    if isinstance(saved, Instance):
        return Walk(parts_of_module, limits).visit(saved)
    raise InvalidFile(f"the file holds {describe(saved)}; expected a state_dict, a module or TorchScript")


def module_tensors(archive: TorchArchive, storages: Mapping[str, Member], limits: Limits) -> Iterator[Named]:
    if archive.is_script:
        return _script_walk(archive, storages, limits)
    saved = _saved(archive, storages, limits)
    if not isinstance(saved, Instance):
        raise InvalidFile(f"the file holds {describe(saved)}; expected a module or TorchScript")
    return Walk(parts_of_module, limits).visit(saved)


def bare_tensor(archive: TorchArchive, storages: Mapping[str, Member], limits: Limits) -> Iterator[Named]:
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
