"""Reading stretches of many files at once: mapped into memory where they are files, else copied from where they are."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.aggregation.layout import Block
from folkmoot.aggregation.strategy import Source, Update
from folkmoot.errors import DamagedUpdate, Unavailable
from folkmoot.tensors.checksums import CHECKSUM_BYTES, Checksum, checksum

Bytes = npt.NDArray[np.uint8]

_MOST_MAPPED = 1 << 14
"""How many files one aggregation maps, though Linux would give a process 65,530 maps in all."""

_POPULATE_READ = 22


class MappedFile:
    """A file in memory, whose bytes nobody copies. Raises OSError."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            self._map = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ) if self.size else b""
        self.bytes: Bytes = np.frombuffer(self._map, np.uint8)
        self._address = self.bytes.ctypes.data

    def populate(self, start: int, size: int) -> None:
        """Have the stretch read; raises OSError for what would otherwise end the process when it is looked at."""
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        if _madvise(self._address + first, start + size - first, _POPULATE_READ):
            number = ctypes.get_errno()
            if number != errno.EINVAL:  # a kernel older than 5.14
                raise OSError(number, os.strerror(number))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`; raises EOFError where the file ends before."""
        if offset + len(buffer) > self.size:
            raise EOFError
        self.populate(offset, len(buffer))
        buffer[:] = self.bytes[offset : offset + len(buffer)].data


class FileSource:
    """A file that is open only while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`; raises EOFError where the file ends before."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            while buffer:
                count = os.preadv(descriptor, [buffer], offset)
                if not count:
                    raise EOFError
                buffer, offset = buffer[count:], offset + count
        finally:
            os.close(descriptor)


class Scratch:
    """Buffers of a thread's own, each made once for the largest use of it."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def bytes(self, name: str, size: int) -> Bytes:
        """A buffer of so many bytes; what it holds is undefined."""
        held: dict[str, Bytes] = self._of_thread.__dict__.setdefault("buffers", {})
        if name not in held or len(held[name]) < size:
            held[name] = np.empty(size, np.uint8)
        return held[name][:size]

    def floats(self, name: str, count: int) -> npt.NDArray[np.float64]:
        return self.bytes(name, 8 * count).view(np.float64)


class Reader:
    """Reads an update, or a model that updates began with, and verifies what has checksums.

    Raises DamagedUpdate where the bytes are not those that came, and Unavailable where they cannot be had now.
    """

    def __init__(self, what: str, source: Source, *, update_id: str = "", checksums: bytes = b"") -> None:
        self.size = source.size
        self._what = what
        self._source = source
        self._mapped = source if isinstance(source, MappedFile) else None
        self._id, self._checksums = update_id, checksums

    @property
    def is_mapped(self) -> bool:
        """Whether the bytes are looked at where they are, which takes no memory."""
        return self._mapped is not None

    @classmethod
    def of(cls, update: Update, number: int) -> Reader:
        """Open the `number`-th of the updates."""
        what = f"update {update.id}"
        try:
            source = opened(update.path, what, number)
        except Unavailable as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            raise DamagedUpdate(f"{what} is damaged: its file is gone", update_id=update.id) from error
        return cls(what, source, update_id=update.id, checksums=update.checksums)

    def prepare(self, first: int, size: int) -> None:
        """Have the stretch read, where that makes looking at it faster."""
        if self._mapped is not None:
            mapped = self._mapped
            self._naming(lambda: mapped.populate(first, size))

    def block(self, block: Block, scratch: Bytes) -> Bytes:
        """The block's bytes, verified; in `scratch` where they are nowhere else."""
        data = self.read(block.start, block.size, scratch)
        if self._checksums:
            self.check(block, checksum(data.data))
        return data

    def check(self, block: Block, found: bytes) -> None:
        """Compare the block's checksum."""
        if found != self.checksum_of(block):
            raise self._damaged(f"its block {block.number} is not what it was when it came in")

    def read(self, offset: int, size: int, scratch: Bytes) -> Bytes:
        """Bytes from anywhere; in `scratch` where they are nowhere else."""
        if self._mapped is not None:
            return self._mapped.bytes[offset : offset + size]
        piece = scratch[:size]
        self._naming(lambda: self._source.read_into(offset, piece.data))
        return piece

    def copy(self, offset: int, size: int) -> bytes:
        """Bytes from anywhere, for good."""
        buffer = bytearray(size)
        self._naming(lambda: self._source.read_into(offset, memoryview(buffer)))
        return bytes(buffer)

    def checksum_of(self, block: Block) -> bytes:
        """Nothing where the update came without."""
        return self._checksums[block.number * CHECKSUM_BYTES : (block.number + 1) * CHECKSUM_BYTES]

    def _naming(self, read: Callable[[], Any]) -> None:
        try:
            read()
        except EOFError as error:
            raise self._damaged("it ends too early") from error
        except OSError as error:
            raise Unavailable(f"{self._what} cannot be read: {error.strerror}") from error

    def _damaged(self, why: str) -> DamagedUpdate:
        return DamagedUpdate(f"{self._what} is damaged: {why}", update_id=self._id)


class Reading:
    """Reads a block of an update from its start to its end, in parts; what was read is verified at the end.

    So it needs no more memory than a part, and reads nothing twice.
    """

    def __init__(self, reader: Reader, block: Block) -> None:
        self._reader, self._block = reader, block
        self._checksum = Checksum() if reader.checksum_of(block) else None

    def read(self, offset: int, size: int, scratch: Bytes) -> Bytes:
        """The next bytes; in `scratch` where they are nowhere else."""
        data = self._reader.read(offset, size, scratch)
        if self._checksum is not None:
            self._checksum.update(data.data)
        return data

    def finish(self) -> None:
        if self._checksum is not None:
            self._reader.check(self._block, self._checksum.digest())


def opened(where: Path | Source, what: str, number: int = 0) -> Source:
    """The `number`-th of many; raises Unavailable."""
    if not isinstance(where, Path):
        return where
    try:
        return MappedFile(where) if number < _most_mapped() else FileSource(where)
    except OSError as error:
        raise Unavailable(f"{what} cannot be read: {error.strerror}") from error


def _most_mapped() -> int:
    """Python keeps a file open while it is mapped: a quarter of those that the process may have are ours."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_MAPPED if soft == resource.RLIM_INFINITY else min(_MOST_MAPPED, soft // 4)


_libc = ctypes.CDLL(None, use_errno=True)
# Through ctypes, which lets other threads go on meanwhile; mmap.madvise does not.
_madvise = _libc.madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
