"""Large bodies are read by the threads that want them, where that can be: from the connection's own socket."""

from __future__ import annotations

import asyncio
import io
import select
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

from folkmoot.server.api.connection import Connection
from folkmoot.server.api.request_bodies import Body

READ_BY_THREAD = "folkmoot.large_body"
BUFFER_BYTES = 64 * 1024

WSGIApplication = Callable[[dict[str, Any], Any], Iterable[bytes]]


def reads_large_bodies(application: WSGIApplication) -> WSGIApplication:
    """WSGI middleware: the LargeBody in the scope of ASGI, if there is one, is what the request is read from."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        large = environ["asgi.scope"].get(READ_BY_THREAD)
        if large is None:
            return application(environ, start_response)
        with io.BufferedReader(large, BUFFER_BYTES) as environ["wsgi.input"]:
            return application(environ, start_response)

    return answer


class LargeBody(io.RawIOBase):
    """A body as a file for one thread; closing this gives the connection its socket back, if it has lent it.

    The first bytes come by the event loop, which may have them already; all of them where they are encrypted.
    """

    def __init__(self, body: Body, connection: Connection | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._body = body
        self._connection = connection
        self._has_more = True
        self._here = memoryview(b"")
        self._lent: socket.socket | None = None
        self._left = self._taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._here and self._has_more and self._lent is None:
            self._here = self._wait_for(self._next_by_the_loop())
        if self._here or self._lent is None:
            return self._take_what_is_here(buffer)
        return self._receive(self._lent, memoryview(buffer)[: self._left])

    def interrupt(self) -> None:
        """Have a thread that waits for more find that there is none; called by the loop."""
        with suppress(OSError):
            if self._lent is not None:
                self._lent.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        lent, self._lent = self._lent, None
        if lent is not None and self._connection is not None:
            lent.close()
            self._loop.call_soon_threadsafe(self._connection.take_back, self._taken)
        super().close()

    def _wait_for(self, coroutine: Coroutine[Any, Any, memoryview]) -> memoryview:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _next_by_the_loop(self) -> memoryview:
        message = await self._body.receive()
        self._has_more = message.get("more_body", False)
        if self._has_more and self._connection is not None:
            self._lent, self._left = self._connection.lend()
        return memoryview(message.get("body", b""))

    def _take_what_is_here(self, buffer: Any) -> int:
        taken = self._here[: len(buffer)]
        buffer[: len(taken)] = taken
        self._here = self._here[len(taken) :]
        return len(taken)

    def _receive(self, lent: socket.socket, buffer: memoryview) -> int:
        if not buffer:
            return 0
        began = time.monotonic()
        count = self._received(lent, buffer)
        if not count:
            raise ConnectionResetError("the client has gone")
        self._body.patience.use(time.monotonic() - began, count)
        self._left -= count
        self._taken += count
        return count

    def _received(self, lent: socket.socket, buffer: memoryview) -> int:
        # Not with a time-out of the socket's, which would look first each time: mostly the bytes are here.
        while True:
            with suppress(BlockingIOError):
                return lent.recv_into(buffer)
            if not _comes_something(lent, self._body.patience.seconds_left):
                raise TimeoutError


def _comes_something(lent: socket.socket, seconds: float) -> bool:
    # `select` takes no numbers above 1,023.
    looking = select.poll()
    looking.register(lent, select.POLLIN)
    return bool(looking.poll(max(seconds, 0) * 1000))
