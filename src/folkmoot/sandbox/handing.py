"""Files that another process is given as bytes: sealed memory, behind a descriptor that can only be read."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PosixPath
from typing import IO, Any

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MOST_AT_ONCE = 1 << 30


@contextmanager
def sealed_copy(path: Path) -> Iterator[int]:
    """Yield a descriptor of a copy in memory that nobody can change; what is in the storage is not shared."""
    writable = os.memfd_create("model", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with path.open("rb") as file:
            while os.sendfile(writable, file.fileno(), None, _MOST_AT_ONCE):
                pass
        fcntl.fcntl(writable, fcntl.F_ADD_SEALS, _SEALS)
        # Kernels before 6.7 map sealed memory only through a descriptor that could not write in the first place.
        readable = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)
    try:
        yield readable
    finally:
        os.close(readable)


class HandedFile(PosixPath):
    """A descriptor where a path is expected: whatever opens it reads that. A confined process opens nothing else."""

    descriptor: int

    @classmethod
    def of(cls, descriptor: int) -> HandedFile:
        file = cls("a handed file")
        file.descriptor = descriptor
        return file

    def open(self, *args: Any, **kwargs: Any) -> IO[Any]:  # type: ignore[override] # read-only, always
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        return os.fdopen(self.descriptor, "rb", closefd=False)
