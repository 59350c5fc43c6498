"""Files that appear whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path

from folkmoot.errors import StorageFull

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BufferedRandom]:
    """Yield a new file that takes the place of `path` once the block ends well, and durably.

    After an error nothing is left of it, and what was at `path` before is still there. Without `durable` a power cut
    may lose both: for what nobody wants any more after one.
    Raises StorageFull when the disk, the quota or the largest file size is exhausted.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with naming_full_disk(path.name):
            with temporary.open("xb+") as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            if not durable:
                # Some file systems write all of a file to the disk that takes the name of another.
                path.unlink(missing_ok=True)
            temporary.replace(path)
            if durable:
                sync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def naming_full_disk(what: str) -> Iterator[None]:
    """Turn the system's report that disk, quota or largest file size is exhausted into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"no space left to write {what}") from error
        raise


def start_writing(descriptor: int, offset: int, size: int) -> None:
    """Have the system begin to write a stretch to the disk, which leaves less to do for fsync; a hint, no promise."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, offset, size, _SYNC_FILE_RANGE_WRITE)


_SYNC_FILE_RANGE_WRITE = 2

# Linux has it alone, and Python not at all. Through ctypes other threads go on meanwhile.
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def sync_directory(directory: Path) -> None:
    """Return once the names in the directory would survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
