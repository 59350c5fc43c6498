from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from folkmoot.sandbox import ModelPart, Sandbox, SandboxLimits, SandboxModel, protections

# The processes of the sandbox find modules where this one does.
sys.path.append(str(Path(__file__).parent / "installed"))
HOSTILE = ("hostile_layers.Hostile", "hostile_layers.HostileWhenLoaded")


@pytest.fixture(scope="session")
def sandbox():
    """With not much of anything; the seconds are what a busy machine needs for loading a small model."""
    limits = SandboxLimits(seconds=5, memory_bytes=512 << 20, output_bytes=1 << 20)
    with Sandbox(limits, torch_classes=HOSTILE) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def granted():
    return protections()


@pytest.fixture
def part(tmp_path):
    """Write a module, TorchScript, arrays or bytes into a file, and describe it."""
    return lambda content: part_of(tmp_path, content)


@pytest.fixture
def model_of(part):
    """A model whose template is `content`, of someone called Ada unless said otherwise."""
    return lambda content, *, owner="ada", **others: SandboxModel(owner, part(content), **others)


def part_of(folder, content):
    import numpy as np
    import torch

    path = folder / f"{len(list(folder.iterdir()))}"
    match content:
        case bytes():
            path.write_bytes(content)
        case torch.jit.ScriptModule():
            content.save(path)
        case dict() if any(isinstance(value, np.ndarray) for value in content.values()):
            from folkmoot.tensors import write_tensors

            write_tensors(path, content)
        case _:
            torch.save(content, path)
    return ModelPart(hashlib.sha256(path.read_bytes()).hexdigest(), path)
