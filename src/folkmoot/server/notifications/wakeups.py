"""Waking the long polls of this process. A poll that is not woken only answers later; it misses nothing."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID


class Wakeups:
    """Each wake-up of a recipient is counted, so that one that comes between looking and waiting is not missed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clock = 0
        self._last: dict[UUID, int] = {}
        self._last_of_all = 0
        self._waiting: defaultdict[UUID, set[asyncio.Future[None]]] = defaultdict(set)
        self._closed = False

    @property
    def clock(self) -> int:
        """Taken before looking, given to `wait` afterwards."""
        return self._clock

    def wake(self, recipients: Iterable[UUID]) -> None:
        """Let those who wait look again. From any thread."""
        with self._lock:
            self._clock += 1
            woken = list(recipients)
            self._last.update(dict.fromkeys(woken, self._clock))
            self._release(*(self._waiting.pop(recipient, ()) for recipient in woken))

    def wake_all(self) -> None:
        """Let everybody look again: it is not known for whom there is something."""
        with self._lock:
            self._clock += 1
            self._last_of_all = self._clock
            self._release_all()

    def close(self) -> None:
        """Let everybody go, now and from now on: the server stops."""
        with self._lock:
            self._closed = True
            self._release_all()

    async def wait(self, recipient: UUID, *, since: int, timeout: float) -> None:
        """Return when `recipient` has been woken after `since`, or when `timeout` seconds are over."""
        future = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._closed or max(self._last.get(recipient, 0), self._last_of_all) > since:
                return
            self._waiting[recipient].add(future)
        try:
            await asyncio.wait([future], timeout=timeout)
        finally:
            self._forget(recipient, future)

    def _forget(self, recipient: UUID, future: asyncio.Future[None]) -> None:
        with self._lock:
            self._waiting[recipient].discard(future)
            if not self._waiting[recipient]:
                del self._waiting[recipient]

    def _release_all(self) -> None:
        self._release(*self._waiting.values())
        self._waiting.clear()

    @staticmethod
    def _release(*waiting: Iterable[asyncio.Future[None]]) -> None:
        """Have all of a loop go on in the same turn of it, so that one look finds what there is for them."""
        of_loop: defaultdict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = defaultdict(list)
        for future in itertools.chain(*waiting):
            of_loop[future.get_loop()].append(future)
        for loop, futures in of_loop.items():
            loop.call_soon_threadsafe(_finish, futures)


def _finish(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


wakeups = Wakeups()
