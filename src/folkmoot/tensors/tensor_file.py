"""The file that Folkmoot keeps models in: safetensors, opened as a memory map, written in blocks, atomic.

A file is canonical when it is byte for byte what TensorFileWriter makes of its tensors. All canonical
files of one schema have the same layout, so that aggregation can read them as flat spans.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from folkmoot.errors import Internal, TooLarge
from folkmoot.tensors.array_blocks import Block
from folkmoot.tensors.hashing import Sha256
from folkmoot.tensors.header import Header, parse_header
from folkmoot.tensors.limits import Limits
from folkmoot.tensors.replacing import replacing, start_writing
from folkmoot.tensors.schema import Schema, StoredTensors, Tensors, blocks_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


_WRITTEN_AT_ONCE_BYTES = 1 << 23
"""After so many the disk is set to work, while the next ones are made."""


class TensorFile(StoredTensors):
    """The tensors of a safetensors file as read-only views of a memory map; nothing is copied.

    The file must not be truncated while it is in use.
    """

    def __init__(self, path: Path, file: bytes | mmap.mmap, header: Header) -> None:
        self.path = path
        self.metadata = header.metadata
        self.data_offset = header.size
        self.schema = Schema(span.spec for span in header.spans)
        self._file = file
        self._spans = {span.spec.name: span for span in header.spans}

    @classmethod
    def open(cls, path: Path, *, limits: Limits = Limits()) -> TensorFile:  # noqa: B008 (frozen)
        """Map the file and check its header; raises InvalidFile in our words, whatever the bytes are."""
        file = map_file(path, limits)
        return cls(path, file, parse_header(memoryview(file), limits))

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        spec, start, _ = self._spans[name]
        if not spec.num_elements:
            return np.empty(spec.shape, spec.numpy_dtype)
        flat = np.frombuffer(self._file, spec.numpy_dtype, spec.num_elements, self.data_offset + start)
        return flat.reshape(spec.shape)

    def blocks(self, name: str) -> Iterator[Block]:
        """As everywhere; memory is given back behind the reader, so that it does not grow with the file."""
        _, position, _ = self._spans[name]
        for block in super().blocks(name):
            yield block
            self._leave(self.data_offset + position, self.data_offset + position + block.nbytes)
            position += block.nbytes

    def _leave(self, start: int, stop: int) -> None:
        first, last = start // mmap.PAGESIZE * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
        if isinstance(self._file, mmap.mmap) and last > first:
            self._file.madvise(mmap.MADV_DONTNEED, first, last - first)

    @property
    def num_bytes(self) -> int:
        """The size of the whole file."""
        return len(self._file)

    @property
    def names_in_file_order(self) -> Iterator[str]:
        return iter(self._spans)

    @property
    def data(self) -> memoryview:
        """Everything behind the header."""
        return memoryview(self._file)[self.data_offset :]

    @property
    def header(self) -> bytes:
        """The bytes before the data, as they are in the file."""
        return bytes(self._file[: self.data_offset])

    @cached_property
    def is_canonical(self) -> bool:
        """Whether the file is byte for byte what we would write for its tensors."""
        return self.header == self.schema.header()


def map_file(path: Path, limits: Limits) -> bytes | mmap.mmap:
    """Map the file into memory; an empty one gives empty bytes. Raises TooLarge."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limits.max_bytes:
            raise TooLarge(f"the file has {size} bytes; at most {limits.max_bytes} are taken")
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""


@dataclass(frozen=True)
class WrittenFile:
    """What a file turned out to be: the SHA-256 of its bytes in hexadecimal, and their number."""

    sha256: str
    num_bytes: int


class TensorFileWriter:
    """Writes a canonical file: the header at once, then the data, block after block in the schema's order.

    A context manager. The file appears at `path` when the block ends well, and is then on the disk unless it is not to
    be `durable`; otherwise nothing is left behind. Raises StorageFull.
    """

    def __init__(self, path: Path, schema: Schema, *, durable: bool = True) -> None:
        self.path = path
        self.schema = schema
        self.durable = durable
        self.num_bytes = self._started = 0
        self._digest = Sha256()

    @property
    def sha256(self) -> str:
        """Of what has been written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        header = self.schema.header()
        self._expected_bytes = len(header) + self.schema.num_bytes
        with ExitStack() as stack:
            self._file = stack.enter_context(replacing(self.path, durable=self.durable))
            stack.push(self._check_complete)
            self.write(header)
            self._stack = stack.pop_all()
        return self

    def write(self, buffer: ReadableBuffer) -> None:
        self._digest.update_during(lambda: self._file.write(buffer), buffer)
        self.num_bytes += memoryview(buffer).nbytes
        if self.durable and self.num_bytes - self._started >= _WRITTEN_AT_ONCE_BYTES:
            self._file.flush()
            start_writing(self._file.fileno(), self._started, self.num_bytes - self._started)
            self._started = self.num_bytes

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def _check_complete(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None and self.num_bytes != self._expected_bytes:
            raise Internal(f"wrote {self.num_bytes} bytes of a model that has {self._expected_bytes}")


def canonical_sha256(tensors: Tensors) -> str:
    """The SHA-256 of the file that `write_tensors` would write, in hexadecimal."""
    schema = Schema.of(tensors)
    digest = hashlib.sha256(schema.header())
    for spec in schema:
        for block in blocks_of(tensors, spec.name):
            digest.update(as_bytes(block))
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Tensors, *, durable: bool = True) -> WrittenFile:
    """Write `tensors`, of any memory layout and byte order, as a canonical file; copies a block at a time.

    One that need not be `durable` may be gone after a power cut.
    """
    schema = Schema.of(tensors)
    blocks = (block for spec in schema for block in blocks_of(tensors, spec.name))
    return write_blocks(path, schema, blocks, durable=durable)


def write_blocks(path: Path, schema: Schema, blocks: Iterable[Block], *, durable: bool = True) -> WrittenFile:
    """Write a canonical file of `schema`, whose values are `blocks`, in its order."""
    with TensorFileWriter(path, schema, durable=durable) as writer:
        for block in blocks:
            writer.write(as_bytes(block))
    return WrittenFile(writer.sha256, writer.num_bytes)


def as_bytes(block: Block) -> memoryview:
    """The bytes of a contiguous array; bfloat16 has no buffer of its own."""
    return block.view(np.uint8).data
