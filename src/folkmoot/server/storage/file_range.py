"""A stretch of a file as a file of its own, which a request that is tried again reads again."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

_BUFFER_BYTES = 2**18


def open_range(path: Path, start: int, stop: int) -> io.BufferedReader:
    """The bytes from `start` up to `stop`; nothing is copied."""
    return io.BufferedReader(_FileRange(path, start, stop), _BUFFER_BYTES)


class _FileRange(io.RawIOBase):
    def __init__(self, path: Path, start: int, stop: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._start, self._size = start, stop - start
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer)[: max(0, self._size - self._position)]
        count = os.preadv(self._file.fileno(), [wanted], self._start + self._position) if wanted else 0
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
