"""From an encoded file to the update that it stands for, chunk by chunk."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.errors import Conflict, NonFinite, TooLarge
from folkmoot.tensors.array_blocks import Block, array_blocks
from folkmoot.tensors.encodings.base import Base
from folkmoot.tensors.encodings.chunks import Float64s, Parts, saturated, unpack
from folkmoot.tensors.encodings.description import HEAD_BYTES, Description, begins_header, parse_description
from folkmoot.tensors.encodings.frame import MAGIC, inflate
from folkmoot.tensors.encodings.layout import CHUNK_ELEMENTS, EXACT, INDICES, SCALES, VALUES, Layout
from folkmoot.tensors.header import parse_header
from folkmoot.tensors.limits import Limits
from folkmoot.tensors.replacing import naming_full_disk
from folkmoot.tensors.schema import Schema, StoredTensors, Tensors, blocks_of, check_fits, is_float
from folkmoot.tensors.tensor_file import TensorFile, WrittenFile, write_tensors

_FLOAT64 = np.dtype(np.float64)
_MAX_PARTS = 3  # values, scales and indices
_MAX_EXTRA_BYTES = 8  # of one scale and one index for each number


def is_encoded(path: Path) -> bool:
    """Whether the file begins as an encoded update does; no model file does."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return head.startswith(MAGIC) or begins_header(head)


def decode(
    path: Path,
    output: Path,
    *,
    expected: Schema,
    base: Base | None = None,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
) -> WrittenFile:
    """Write the update in the encoded file `path` as a canonical TensorFile; holds some chunks of it.

    `base` is the model that the round began with; it has at least the tensors of `expected`. A compressed file is
    expanded next to `output`, to no more than `expected` can need, and leaves nothing there. Raises InvalidFile,
    SchemaMismatch, NonFinite, StorageFull, and Conflict if the file holds differences to another model.
    """
    return write_tensors(output, open_encoded(path, output.parent, expected=expected, base=base, limits=limits))


def open_encoded(
    path: Path,
    folder: Path,
    *,
    expected: Schema,
    base: Base | None = None,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
) -> EncodedFile:
    """Open the encoded file for `decode`; a compressed one is expanded in `folder`, where nothing of it is seen."""
    file = _open(path, folder, expected, limits)
    description = parse_description(file.metadata, file.schema)
    check_fits(expected, description.schema)
    return EncodedFile(file, description, _tensors_of(base, description))


class EncodedFile(StoredTensors):
    """The tensors of the update that an encoded file stands for, decoded as they are read."""

    def __init__(self, file: TensorFile, description: Description, base: Tensors) -> None:
        self.schema = description.schema
        self._file = file
        self._layouts = description.layouts
        self._base = base

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        spec = self._layouts[name].spec
        blocks = [np.empty(0, spec.numpy_dtype), *self.blocks(name)]
        return np.concatenate(blocks).reshape(spec.shape)

    def blocks(self, name: str) -> Iterator[Block]:
        return _decoded(self._file, self._layouts[name], self._base)


def _open(path: Path, folder: Path, expected: Schema, limits: Limits) -> TensorFile:
    parts = replace(
        limits, max_tensors=_MAX_PARTS * limits.max_tensors, max_name_length=limits.max_name_length + len(VALUES) + 1
    )
    with path.open("rb") as source:
        if source.read(len(MAGIC)) != MAGIC:
            return TensorFile.open(path, limits=parts)
        if path.stat().st_size > limits.max_bytes:
            raise TooLarge(f"the file has {path.stat().st_size} bytes; at most {limits.max_bytes} are taken")
        source.seek(0)
        most = limits.max_header_bytes + expected.num_bytes + _MAX_EXTRA_BYTES * expected.num_elements
        with naming_full_disk("an update that is compressed"), TemporaryFile(dir=folder) as expanded:
            inflate(source, expanded, min(most, limits.max_bytes))
            size = expanded.tell()
            expanded.flush()
            content = mmap.mmap(expanded.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    return TensorFile(path, content, parse_header(memoryview(content), parts))


def _tensors_of(base: Base | None, description: Description) -> Tensors:
    """The tensors that differences are added to: none, if the update holds no differences."""
    if description.base is None:
        return {}
    if base is None or base.sha256 != description.base:
        raise Conflict(
            f"the update holds differences to the model {description.base[:16]}, which is not the one that this round "
            "began with: fetch the round's model and train from it"
        )
    return base.tensors


def _decoded(file: TensorFile, layout: Layout, base: Tensors) -> Iterator[npt.NDArray[Any]]:
    name, dtype = layout.spec.name, layout.spec.numpy_dtype
    if layout.is_exact:
        yield from _exact(file, layout)
    elif not base:
        yield from (saturated(numbers, dtype) for numbers in _numbers(file, layout))
    else:
        blocks = blocks_of(base, name)  # of TensorFiles: each but the last has a multiple of a chunk's elements
        base_chunks = (chunk for block in blocks for chunk in array_blocks(block, _FLOAT64, CHUNK_ELEMENTS))
        for numbers, chunk in zip(_numbers(file, layout), base_chunks, strict=True):
            yield saturated(chunk + numbers, dtype)


def _exact(file: TensorFile, layout: Layout) -> Iterator[npt.NDArray[Any]]:
    for block in array_blocks(file[f"{EXACT}/{layout.spec.name}"], layout.spec.numpy_dtype):
        if is_float(block.dtype) and not np.isfinite(block).all():
            raise NonFinite(f"{layout.spec.name} holds {block[np.isfinite(block).argmin()]}")
        yield block


def _numbers(file: TensorFile, layout: Layout) -> Iterator[Float64s]:
    """The numbers in the file for each chunk of the tensor, 0 for those that top-k has left out."""
    values, scales, indices = (_Cursor(file.get(f"{role}/{layout.spec.name}")) for role in (VALUES, SCALES, INDICES))
    for size in layout.chunk_sizes():
        kept = layout.kept(size)
        yield unpack(Parts(values.take(kept), scales.take(layout.scales(size)), indices.take(kept)), size, layout)


class _Cursor:
    """Takes a flat array piece by piece; of none it takes none."""

    def __init__(self, array: npt.NDArray[Any] | None) -> None:
        self._array = array
        self._position = 0

    def take(self, count: int) -> Any:
        start, self._position = self._position, self._position + count
        return None if self._array is None else self._array[start : self._position]
