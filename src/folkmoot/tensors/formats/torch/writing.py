"""New values in a copy of a torch file, at the very places of the old ones, a block at a time."""

from __future__ import annotations

import hashlib
import shutil
import struct
import zlib
from collections.abc import Iterable
from io import BufferedRandom
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from folkmoot.tensors.formats.torch.views import TensorView
from folkmoot.tensors.formats.zip_archive import Member
from folkmoot.tensors.replacing import replacing
from folkmoot.tensors.schema import Tensors
from folkmoot.tensors.tensor_file import WrittenFile

_BLOCK_BYTES = 1 << 20


class Place(NamedTuple):
    """A tensor, its view, and the member of the archive that is its storage."""

    name: str
    view: TensorView
    member: Member


def write_copy(template: Path, places: Iterable[Place], tensors: Tensors, output: Path) -> WrittenFile:
    """Write `template` with the values of `tensors` at `places`, and with the checksums that belong to them."""
    changed = {}
    with replacing(output) as file:
        with template.open("rb") as original:
            shutil.copyfileobj(original, file, _BLOCK_BYTES)
        for name, view, member in places:
            changed[member.name] = member
            _write_values(file, member.data_offset, view, np.asarray(tensors[name]))
        for member in changed.values():
            _mend_checksum(file, member)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return WrittenFile(digest, file.tell())


def _write_values(file: BufferedRandom, storage_start: int, view: TensorView, values: npt.NDArray[Any]) -> None:
    """Write `values` through the strides of `view`."""
    strides = [stride * view.element.itemsize for stride in view.strides]
    axes = sorted((axis for axis in range(values.ndim) if values.shape[axis] > 1), key=lambda axis: -strides[axis])
    # The axis of the longest stride first, and none of length 1: then the file is written from front to back.
    ordered = values.transpose(axes + [axis for axis in range(values.ndim) if axis not in axes])
    ordered = ordered.reshape([values.shape[axis] for axis in axes])
    _scatter(file, storage_start + view.span[0], ordered, tuple(strides[axis] for axis in axes))


def _scatter(file: BufferedRandom, start: int, values: npt.NDArray[Any], strides: tuple[int, ...]) -> None:
    """Write `values` from `start`, in pieces that span a block at most; the gaps between them keep their bytes."""
    steps = zip(values.shape, strides, strict=True)
    span = sum((size - 1) * stride for size, stride in steps) + values.itemsize
    if span <= _BLOCK_BYTES:
        _write_span(file, start, span, values, strides)
        return
    rows = _BLOCK_BYTES // strides[0]
    if rows < 2:
        for number, row in enumerate(values):
            _scatter(file, start + number * strides[0], row, strides[1:])
        return
    for first in range(0, len(values), rows):
        _scatter(file, start + first * strides[0], values[first : first + rows], strides)


def _write_span(
    file: BufferedRandom, start: int, span: int, values: npt.NDArray[Any], strides: tuple[int, ...]
) -> None:
    file.seek(start)
    piece = bytearray(span) if span == values.nbytes else bytearray(file.read(span))
    np.ndarray(values.shape, values.dtype.newbyteorder("<"), piece, 0, strides)[...] = values
    file.seek(start)
    file.write(piece)


def _mend_checksum(file: BufferedRandom, member: Member) -> None:
    crc = 0
    file.seek(member.data_offset)
    for done in range(0, member.num_bytes, _BLOCK_BYTES):
        crc = zlib.crc32(file.read(min(_BLOCK_BYTES, member.num_bytes - done)), crc)
    for offset in member.crc_offsets:
        file.seek(offset)
        file.write(struct.pack("<L", crc))
