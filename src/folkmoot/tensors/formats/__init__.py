"""What users upload and download: one module for each format, known by its content and never by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from folkmoot.errors import InvalidFile, UnsupportedContainer
from folkmoot.tensors.encodings import is_encoded
from folkmoot.tensors.formats import npz, safetensors
from folkmoot.tensors.formats.onnx import format as onnx_format
from folkmoot.tensors.formats.polyglots import check_not_also_zip
from folkmoot.tensors.formats.torch import format as torch_format
from folkmoot.tensors.limits import Limits
from folkmoot.tensors.schema import StoredTensors, Tensors
from folkmoot.tensors.tensor_file import WrittenFile

_HEAD_BYTES = 1 << 17  # the name of a zip archive's first member may take half of it


class Format(Protocol):
    """What a module of this package offers."""

    NAME: str
    EXTENSION: str

    def recognise(self, head: bytes) -> bool:
        """Whether a file that begins with `head` is of this format."""

    def read(self, path: Path, limits: Limits) -> StoredTensors:
        """Open the file; raises InvalidFile at once, or when a tensor is asked for."""

    def write(self, template: Path, tensors: Tensors, output: Path) -> WrittenFile:
        """Write the file `template` with other values; equal input gives equal bytes.

        Raises SchemaMismatch if `tensors` are not those of the template.
        """

    def export(self, tensors: Tensors, output: Path) -> WrittenFile:
        """Write a file of this format that holds `tensors` and nothing else; equal input gives equal bytes.

        Raises InvalidValue where the format needs more than tensors.
        """


FORMATS: dict[str, Format] = {module.NAME: module for module in (safetensors, npz, torch_format, onnx_format)}
"""In the order in which they are asked: npz knows its own zip archives, torch takes all others."""

EXPORTED: dict[str, Format] = {name: known for name, known in FORMATS.items() if known is not onnx_format}
"""Those that can be made of tensors alone; an ONNX file is a graph besides."""

_ZIP = b"PK\x03\x04"
_OLD_TORCH = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # the number with which the pickle of torch before 1.6 begins


def recognise(path: Path) -> Format:
    """Find the format of a file by its first bytes.

    Raises UnsupportedContainer, and InvalidFile for a file that is a zip archive besides.
    """
    if is_encoded(path):  # by its parts it would be a safetensors file of strange tensors
        raise UnsupportedContainer(
            "this is an encoded update, which only a training takes: a model is sent as it is, and not compressed"
        )
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for candidate in FORMATS.values():
        if candidate.recognise(head):
            if not head.startswith(_ZIP):  # a zip archive is read strictly up to its last byte
                check_not_also_zip(path)
            return candidate
    raise UnsupportedContainer(f"{_kind(head)} is not taken; taken are {', '.join(FORMATS)}")


def _kind(head: bytes) -> str:
    """Say what a file is that nobody recognises, and what to do about it, where that is known."""
    if _OLD_TORCH in head[:32]:
        return "a file of torch before 1.6 (save it again with a current torch)"
    if head[257:262] == b"ustar":
        return "a tar archive (save the model again with a current torch)"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a bare pickle (use torch.save or numpy.savez)"
    return "this kind of file"


def open_tensors(path: Path, *, limits: Limits = Limits()) -> StoredTensors:  # noqa: B008 (frozen)
    """Open a file of any format, read-only; raises InvalidFile at once, or when a tensor is asked for."""
    return recognise(path).read(path, limits)


def open_tensor(path: Path, *, limits: Limits = Limits()) -> npt.NDArray[Any]:  # noqa: B008 (frozen)
    """Open a file that holds one tensor and nothing else, for torch one saved by itself; raises InvalidFile."""
    kind = recognise(path)
    tensors = torch_format.read_tensor(path, limits) if kind.NAME == torch_format.NAME else kind.read(path, limits)
    if len(tensors) != 1:
        raise InvalidFile(f"the file holds {len(tensors)} tensors; expected one")
    (tensor,) = tensors.values()
    return tensor
