"""Reading stretches of many files at once."""

from __future__ import annotations

import os
import resource
from pathlib import Path

_MOST_OPEN = 256


class FileSource:
    """A file of which many threads read stretches; between two reads it is open only if `keep_open`."""

    def __init__(self, path: Path, *, keep_open: bool) -> None:
        self.path = path
        self.size = path.stat().st_size
        self._descriptor = os.open(path, os.O_RDONLY) if keep_open else None

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`; raises EOFError where the file ends before."""
        if self._descriptor is not None:
            _read_fully(self._descriptor, offset, buffer)
            return
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            _read_fully(descriptor, offset, buffer)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def most_open_files() -> int:
    """How many files one aggregation may keep open: a quarter of what the process may, at most 256."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_OPEN if soft == resource.RLIM_INFINITY else min(_MOST_OPEN, soft // 4)


def _read_fully(descriptor: int, offset: int, buffer: memoryview) -> None:
    while buffer:
        count = os.preadv(descriptor, [buffer], offset)
        if not count:
            raise EOFError
        buffer, offset = buffer[count:], offset + count
