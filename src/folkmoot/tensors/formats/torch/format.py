"""torch: the zip archives of torch.save (since torch 1.6) and torch.jit.save; nothing in them is run.

A file holds a state_dict, a whole nn.Module or TorchScript. Its tensors are views of storages, and each storage
is a member of the archive, stored as it is, so that reading maps it and writing replaces its bytes in a copy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from folkmoot.tensors.formats.torch.contents import bare_tensor, module_tensors
from folkmoot.tensors.formats.torch.export import write_state_dict, write_tensor
from folkmoot.tensors.formats.torch.reading import TorchFile
from folkmoot.tensors.formats.torch.writing import write_copy
from folkmoot.tensors.limits import TRUSTED, Limits
from folkmoot.tensors.schema import Schema, Tensors, check_fits
from folkmoot.tensors.tensor_file import WrittenFile
from folkmoot.tensors.tied import check_tied

NAME = "torch"
EXTENSION = ".pt"

_LOCAL_HEADER_BYTES = 30


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
    return write_copy(template, original.places(), tensors, output)


def export(tensors: Tensors, output: Path) -> WrittenFile:
    """Write a state_dict that torch.load(weights_only=True) opens, its tensors in the order of `tensors`."""
    return write_state_dict(tensors, output)


def check_module(path: Path, limits: Limits) -> None:
    """Raise InvalidFile unless the file is a module or TorchScript; it need not have parameters."""
    TorchFile(path, limits, module_tensors)


def read_tensor(path: Path, limits: Limits) -> TorchFile:
    """Open a file in which torch has saved one tensor by itself; raises InvalidFile where it holds anything else."""
    return TorchFile(path, limits, bare_tensor)


def export_tensor(tensor: npt.NDArray[Any], output: Path) -> WrittenFile:
    """Write one tensor by itself, as torch.save would; equal input gives equal bytes."""
    return write_tensor(tensor, output)
