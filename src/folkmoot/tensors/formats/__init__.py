"""What users upload and download: one module for each format, known by its content and never by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from folkmoot.errors import UnsupportedContainer
from folkmoot.tensors.formats import npz, onnx, safetensors
from folkmoot.tensors.limits import Limits
from folkmoot.tensors.schema import Tensors
from folkmoot.tensors.tensor_file import WrittenFile, write_tensors

_HEAD_BYTES = 1024


class Format(Protocol):
    """What a module of this package offers."""

    NAME: str
    EXTENSION: str

    def recognise(self, head: bytes) -> bool:
        """Whether a file that begins with `head` is of this format."""

    def read(self, path: Path, limits: Limits) -> Tensors:
        """Open the file; raises InvalidFile at once, or when a tensor is asked for."""

    def write(self, template: Path, tensors: Tensors, output: Path) -> WrittenFile:
        """Write the file `template` with other values; equal input gives equal bytes.

        Raises SchemaMismatch if `tensors` are not those of the template.
        """

    def export(self, tensors: Tensors, output: Path) -> WrittenFile:
        """Write a file of this format that holds `tensors` and nothing else; equal input gives equal bytes.

        Raises InvalidValue where the format needs more than tensors.
        """


FORMATS: dict[str, Format] = {module.NAME: module for module in (safetensors, npz, onnx)}


def recognise(path: Path) -> Format:
    """Find the format of a file by its first bytes; raises UnsupportedContainer."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for candidate in FORMATS.values():
        if candidate.recognise(head):
            return candidate
    raise UnsupportedContainer(f"this kind of file is not taken; taken are {', '.join(FORMATS)}")


def open_tensors(path: Path, *, limits: Limits = Limits()) -> Tensors:  # noqa: B008 (frozen)
    """Open a file of any format, read-only; raises InvalidFile at once, or when a tensor is asked for."""
    return recognise(path).read(path, limits)


def to_canonical(path: Path, output: Path, *, limits: Limits = Limits()) -> WrittenFile:  # noqa: B008 (frozen)
    """Write the tensors of a file of any format as a canonical TensorFile; holds one tensor at a time."""
    return write_tensors(output, open_tensors(path, limits=limits))
