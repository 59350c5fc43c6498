"""SHA-256 beside other work: hashlib lets go of the interpreter, so that a second processor can do it meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# Waking a thread takes as long as hashing some 30 KiB.
_WORTHWHILE_BYTES = 1 << 18


@cache
def _threads() -> ThreadPoolExecutor:
    """For all files of the process together: no more of them are hashed at once than there is use in."""
    return ThreadPoolExecutor(4, "sha256")


# A child process has none of its parent's threads.
os.register_at_fork(after_in_child=_threads.cache_clear)


class Sha256:
    """Of what is given to it piece by piece."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, data: ReadableBuffer) -> None:
        self._digest.update(data)

    def update_during(self, work: Callable[[], object], data: ReadableBuffer) -> None:
        """Hash `data` while `work` is done, such as writing it; both are over when this returns."""
        if memoryview(data).nbytes < _WORTHWHILE_BYTES:
            self._digest.update(data)
            work()
            return
        hashed = _threads().submit(self._digest.update, data)
        try:
            work()
        finally:
            hashed.result()

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
