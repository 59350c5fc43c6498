"""npz: a zip archive of .npy files, as numpy.savez and numpy.savez_compressed write it."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidFile, InvalidValue, TooLarge
from folkmoot.tensors.array_blocks import Block, array_blocks
from folkmoot.tensors.formats.npy import MAX_PREFIX_BYTES, NpyHeader, npy_prefix, parse_npy_header
from folkmoot.tensors.formats.zip_archive import STORED, Member, ZipArchive
from folkmoot.tensors.limits import TRUSTED, Limits
from folkmoot.tensors.replacing import replacing
from folkmoot.tensors.schema import BFLOAT16, Schema, StoredTensors, Tensors, check_fits
from folkmoot.tensors.tensor_file import WrittenFile

NAME = "npz"
EXTENSION = ".npz"

_SUFFIX = ".npy"
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # the same for every file, so that equal tensors give equal bytes
_LOCAL_HEADER_BYTES = 30
# An array in Fortran's order has to be in memory as a whole before its first row can be written.
_MAX_GROWTH = 32 << 20


def recognise(head: bytes) -> bool:
    """A zip archive whose first member is named like an array; torch and others use zip archives too."""
    name_length = int.from_bytes(head[26:28], "little")
    name = head[_LOCAL_HEADER_BYTES : _LOCAL_HEADER_BYTES + name_length]
    return head.startswith(b"PK\x03\x04") and name.endswith(_SUFFIX.encode())


def read(path: Path, limits: Limits) -> NpzFile:
    return NpzFile(path, limits)


class NpzFile(StoredTensors):
    """The arrays of an archive, in native byte order; a stored one is a view of the file, others are inflated.

    A member's checksum is compared when it is asked for; by `blocks` at its end.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.archive = ZipArchive(path, limits)
        self.members = {_tensor_name(member, limits): member for member in self.archive.members}
        self.headers = {name: self._header(name, member) for name, member in self.members.items()}
        self.schema = Schema(header.spec for header in self.headers.values())

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        header = self.headers[name]
        array = np.frombuffer(self._data(name), header.dtype, header.spec.num_elements, 0)
        shaped = array.reshape(header.spec.shape, order="F" if header.fortran_order else "C")
        return shaped.astype(header.spec.numpy_dtype, order="K", copy=False)

    def blocks(self, name: str) -> Iterator[Block]:
        header = self.headers[name]
        if header.fortran_order:
            return array_blocks(self[name], header.spec.numpy_dtype)
        return self._streamed(header, self.members[name])

    def prefix(self, name: str) -> bytes:
        """The bytes of the member before its values."""
        return self._start(self.members[name], self.headers[name].size)

    def _header(self, name: str, member: Member) -> NpyHeader:
        header = parse_npy_header(name, self._start(member, MAX_PREFIX_BYTES))
        if header.num_bytes != member.num_bytes:
            raise InvalidFile(f"{name} should have {header.num_bytes} bytes and has {member.num_bytes}")
        if header.fortran_order and member.num_bytes - member.compressed_bytes > _MAX_GROWTH:
            raise TooLarge(
                f"{name} is compressed and in Fortran's order, and too large to be both; save it in C's order"
            )
        return header

    def _start(self, member: Member, size: int) -> bytes:
        start = b""
        for chunk in self.archive.chunks(member):
            start += bytes(chunk[: size - len(start)])
            if len(start) == size:
                break
        return start

    def _streamed(self, header: NpyHeader, member: Member) -> Iterator[Block]:
        """The values as they come out of the archive, so that what was compressed takes no more memory than a piece."""
        left_out, rest = header.size, b""
        for chunk in self.archive.chunks(member):
            values = memoryview(chunk)[left_out:]
            left_out -= len(chunk) - len(values)
            data = rest + values if rest else values
            whole = len(data) // header.dtype.itemsize
            rest = bytes(data[whole * header.dtype.itemsize :])
            yield from array_blocks(np.frombuffer(data, header.dtype, whole), header.spec.numpy_dtype)

    def _data(self, name: str) -> memoryview:
        header, member = self.headers[name], self.members[name]
        if member.method == STORED:
            for _ in self.archive.chunks(member):
                pass  # for the checksum
            start = member.data_offset + header.size
            return memoryview(self.archive.file)[start : start + header.spec.num_bytes]
        expanded = bytearray(member.num_bytes)
        position = 0
        for chunk in self.archive.chunks(member):
            expanded[position : position + len(chunk)] = chunk
            position += len(chunk)
        return memoryview(expanded).toreadonly()[header.size :]


def _tensor_name(member: Member, limits: Limits) -> str:
    name = member.name
    if _could_be_elsewhere(name):
        raise InvalidFile(f"{name!r} is no name for a member of an .npz archive")
    if not name.endswith(_SUFFIX):
        raise InvalidFile(f"{name!r} is not an array; an .npz archive holds nothing but .npy files")
    if len(name) > limits.max_name_length + len(_SUFFIX):
        raise TooLarge(f"a tensor's name is longer than {limits.max_name_length} characters")
    return name.removesuffix(_SUFFIX)


def _could_be_elsewhere(name: str) -> bool:
    """Whether a program that unpacks the archive may take the name for a place outside of it, or for another name."""
    return name.startswith("/") or "\\" in name or ".." in name.split("/")


def write(template: Path, tensors: Tensors, output: Path) -> WrittenFile:
    """Write the template's members in their order, each with its own header, byte order and compression."""
    original = NpzFile(template, TRUSTED)
    check_fits(original.schema, Schema.of(tensors), what="checkpoint")
    with _writing(output) as archive:
        for name, member in original.members.items():
            header, array = original.headers[name], np.asarray(tensors[name])
            blocks = array_blocks(array.T if header.fortran_order else array, header.dtype)
            _write_member(archive, member.name, member.method, original.prefix(name), header.spec.num_bytes, blocks)
    return _written(output)


def export(tensors: Tensors, output: Path) -> WrittenFile:
    """Write what numpy.savez would write; bfloat16, which NumPy does not have, becomes float32.

    Raises InvalidValue for the name of a tensor under which `read` would refuse it.
    """
    odd = next((name for name in tensors if _could_be_elsewhere(name + _SUFFIX)), None)
    if odd is not None:
        raise InvalidValue(
            f"an .npz archive cannot hold a tensor named {odd!r}, which would be a file at another place for programs "
            "that unpack it; safetensors and torch files can"
        )
    with _writing(output) as archive:
        for name in tensors:
            array = np.asarray(tensors[name])
            dtype = np.dtype("<f4") if array.dtype == BFLOAT16 else array.dtype.newbyteorder("<")
            prefix, num_bytes = npy_prefix(dtype, array.shape), array.size * dtype.itemsize
            _write_member(archive, name + _SUFFIX, STORED, prefix, num_bytes, array_blocks(array, dtype))
    return _written(output)


@contextmanager
def _writing(output: Path) -> Iterator[zipfile.ZipFile]:
    with replacing(output) as file, zipfile.ZipFile(file, "w") as archive:
        yield archive


def _written(output: Path) -> WrittenFile:
    with output.open("rb") as file:
        return WrittenFile(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())


def _write_member(
    archive: zipfile.ZipFile,
    name: str,
    method: int,
    prefix: bytes,
    num_bytes: int,
    blocks: Iterable[npt.NDArray[Any]],
) -> None:
    entry = zipfile.ZipInfo(name, _FIRST_DATE)
    entry.compress_type = method
    entry.file_size = len(prefix) + num_bytes  # lets zipfile decide whether it needs the 64-bit fields
    with archive.open(entry, "w") as file:
        file.write(prefix)
        for block in blocks:
            file.write(block.view(np.uint8).data)
