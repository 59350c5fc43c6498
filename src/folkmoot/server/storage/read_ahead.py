"""Reading a file that is far away, in order: the next stretch is on its way while this one is worked on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future

ReadInto = Callable[[int, memoryview], None]

MEMORY_BYTES = 256 * 2**20
"""Of all files together that are read at the same time."""
KEPT = 3
"""Stretches of each file: the next one, and those that two threads, one a little behind the other, are at."""
LEAST_BYTES, MOST_BYTES = 256 * 2**10, 8 * 2**20


def stretch_of(files: int) -> int:
    """How many bytes of each file are fetched at once where so many are read; 0 where memory has no room for any."""
    fair = MEMORY_BYTES // (KEPT * max(files, 1)) // LEAST_BYTES * LEAST_BYTES
    return min(fair, MOST_BYTES)


class ReadAhead:
    """A file of `size` bytes as the source of an aggregation; `readers` fetch its stretches with `read_into`.

    Called by several threads at once. With a `stretch` of 0 bytes each call fetches just what it asks for.
    """

    def __init__(self, read_into: ReadInto, size: int, *, stretch: int, readers: Executor) -> None:
        self.size = size
        self._read_into = read_into
        self._stretch = stretch
        self._readers = readers
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Future[bytearray]] = OrderedDict()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`; raises EOFError where the file ends before, and what the fetching raises."""
        if offset + len(buffer) > self.size:
            raise EOFError
        if not self._stretch:
            self._read_into(offset, buffer)
            return
        while buffer:
            number, within = divmod(offset, self._stretch)
            piece = memoryview(self._fetched(number))[within : within + len(buffer)]
            buffer[: len(piece)] = piece
            buffer, offset = buffer[len(piece) :], offset + len(piece)

    def _fetched(self, number: int) -> bytearray:
        with self._lock:
            wanted = self._begun(number)
            self._begun(number + 1)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return wanted.result()

    def _begun(self, number: int) -> Future[bytearray]:
        kept = self._kept.get(number)
        if kept is None or (kept.done() and kept.exception()):
            self._kept[number] = kept = self._readers.submit(self._fetch, number)
        self._kept.move_to_end(number)
        return kept

    def _fetch(self, number: int) -> bytearray:
        start = number * self._stretch
        data = bytearray(max(0, min(self._stretch, self.size - start)))
        if data:
            self._read_into(start, memoryview(data))
        return data
