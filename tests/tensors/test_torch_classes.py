"""The table of what a whole module may name, held against the installed torch."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
import torch

from folkmoot.tensors.formats.torch.classes import FUNCTIONS, MODULE_CLASSES


def public_modules():
    """Every class of torch.nn.modules that a user would make a layer of."""
    for info in pkgutil.iter_modules(torch.nn.modules.__path__, "torch.nn.modules."):
        for name, value in vars(importlib.import_module(info.name)).items():
            if inspect.isclass(value) and issubclass(value, torch.nn.Module) and value.__module__ == info.name:
                yield info.name, name


def test_every_public_layer_is_in_the_table_but_the_lazy_ones():
    expected = {(file, name) for file, name in public_modules() if not name.startswith(("_", "Lazy"))}

    assert expected <= MODULE_CLASSES


@pytest.mark.parametrize(("module", "name"), sorted(MODULE_CLASSES))
def test_a_class_of_the_table_is_a_module_of_torch(module, name):
    cls = getattr(importlib.import_module(module), name)

    assert issubclass(cls, torch.nn.Module)
    assert (cls.__module__, cls.__qualname__) == (module, name)


@pytest.mark.parametrize(("module", "name"), sorted(MODULE_CLASSES))
def test_loading_a_class_of_the_table_runs_nothing_but_torchs_own_code_for_its_layers(module, name):
    cls = getattr(importlib.import_module(module), name)

    for hook in ("__setstate__", "__new__", "__reduce__", "__reduce_ex__", "__setattr__", "__getattr__"):
        owner = next(base for base in cls.__mro__ if hook in vars(base) or base is object)
        assert owner is object or owner.__module__.startswith("torch.nn.modules.")


@pytest.mark.filterwarnings("ignore:Implicit dimension")
@pytest.mark.parametrize(("module", "name"), sorted(FUNCTIONS))
def test_a_function_of_the_table_computes(module, name):
    # Under this very name it is pickled.
    function = getattr(importlib.import_module(module) if module != "torch._C._nn" else torch._C._nn, name)

    assert torch.is_tensor(function(torch.ones(2, 2)))
