"""Importing, before anything is confined, all that torch and onnxruntime would import when first used."""

from __future__ import annotations

import io
from typing import Any

import numpy.random  # NumPy imports it when first used

from folkmoot.sandbox.libraries import import_libraries, is_imported


def warm_up() -> None:
    """Make a small model, and load and run it: what is not installed is left out."""
    import_libraries()
    if is_imported("torch"):
        _exercise_torch()


def _exercise_torch() -> None:
    import torch

    from folkmoot.sandbox.torch_model import TorchModel

    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(), torch.nn.Softmax(-1))
    traced = torch.jit.trace(module.eval(), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
    for loaded in (_saved_and_loaded(module), _saved_and_loaded(traced)):
        model = TorchModel(loaded)
        model.use({"0.bias": numpy.zeros(2, numpy.float32)})
        model.run(numpy.zeros((1, 2), numpy.float32))
        model.summary((None, 2))
    TorchModel(module).run_with_dropout(numpy.zeros((1, 2), numpy.float32), samples=2, seed=0)


def _saved_and_loaded(module: Any) -> Any:
    import torch

    buffer = io.BytesIO()
    is_script = isinstance(module, torch.jit.ScriptModule)
    torch.jit.save(module, buffer) if is_script else torch.save(module, buffer)
    buffer.seek(0)
    if is_script:
        return torch.jit.load(buffer)  # type: ignore[no-untyped-call]
    return torch.load(buffer, weights_only=False)
