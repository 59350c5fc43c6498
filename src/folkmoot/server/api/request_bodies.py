"""Bodies of requests on their way in: what breaks off or comes too slowly is given up, and large ones take turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from django.conf import settings

from folkmoot.errors import Unavailable
from folkmoot.server.api.long_poll import Receive, Scope
from folkmoot.server.api.senders import address_of, sender_of

SMALL_BODY_BYTES = 64 * 1024
"""A body of at most so many bytes is awaited before it takes a thread."""
MIN_SMALL_BODY_BYTES = 4096
"""What has to come of it within the time-out; of a large one it is FOLKMOOT_MIN_UPLOAD_RATE."""
TURN_SECONDS = 5.0
"""How long a large body waits for others to be read."""


def is_large(scope: Scope) -> bool:
    """Whether the request has, or may have, more than a small body."""
    headers = dict(scope.get("headers", ()))
    # What is no number has been refused before.
    return b"transfer-encoding" in headers or int(headers.get(b"content-length", 0)) > SMALL_BODY_BYTES


class Body:
    """A request's body as its reader gets it: one that breaks off, or comes too slowly, is an error.

    The bridge would take the one for the body's end, and a thread would wait for the other for ever.
    """

    def __init__(self, receive: Receive, *, is_large: bool) -> None:
        self._receive = receive
        self.patience = Patience(is_large=is_large)
        self._ahead: dict[str, Any] | None = None
        self._failure: OSError | None = None

    async def read_ahead(self) -> None:
        """Wait for all of it; what goes wrong is raised to its reader."""
        body, has_more = bytearray(), True
        try:
            while has_more:
                message = await self._next()
                body += message.get("body", b"")
                has_more = message.get("more_body", False)
        except OSError as error:
            self._failure = error
        self._ahead = {"type": "http.request", "body": bytes(body)}

    async def receive(self) -> dict[str, Any]:
        if self._failure is not None:
            raise self._failure
        if self._ahead is None:
            return await self._next_for_thread()
        message, self._ahead = self._ahead, None
        return message

    async def _next_for_thread(self) -> dict[str, Any]:
        try:
            return await self._next()
        except asyncio.CancelledError:
            raise ConnectionAbortedError("the server ends") from None

    async def _next(self) -> dict[str, Any]:
        started = time.monotonic()
        async with asyncio.timeout(self.patience.seconds_left):
            message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client has gone")
        self.patience.use(time.monotonic() - started, len(message.get("body", b"")))
        return message


class Patience:
    """How long a body is still waited for, in seconds, and how much of it has to come meanwhile."""

    def __init__(self, *, is_large: bool) -> None:
        self._is_large = is_large
        self._renew()

    def use(self, seconds: float, num_bytes: int) -> None:
        """So long it took until so many bytes came. Not what the server did with them: only the waiting counts."""
        self.seconds_left -= seconds
        self._bytes_wanted -= num_bytes
        if self._bytes_wanted <= 0:
            self._renew()

    def _renew(self) -> None:
        # A few bytes buy no time: a byte a second would hold a thread as well as none.
        self.seconds_left = settings.BODY_TIMEOUT_SECONDS
        self._bytes_wanted = self.seconds_left * settings.MIN_UPLOAD_RATE if self._is_large else MIN_SMALL_BODY_BYTES


class Turns:
    """At most `total` large bodies at once: of one sender a third of that, from one address two thirds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._all = asyncio.Semaphore(total)
        # There for as long as somebody has a turn, or waits for one.
        self._shares: WeakValueDictionary[object, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, scope: Scope) -> AsyncIterator[None]:
        """Wait for a turn and have it for the `with` block; Unavailable if that takes long."""
        # The own shares first: who waits for these keeps nobody else waiting.
        limits = (*self._own_shares(scope), self._all)
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(TURN_SECONDS):
                    for limit in limits:
                        await held.enter_async_context(limit)
            except TimeoutError:
                raise Unavailable("Too many large requests are being read; try again.") from None
            yield

    def _own_shares(self, scope: Scope) -> tuple[asyncio.Semaphore, asyncio.Semaphore]:
        own, of_address = self._total // 3, self._total * 2 // 3
        sender, address = ("sender", sender_of(scope)), ("address", address_of(scope))
        return self._share(sender, own), self._share(address, of_address)

    def _share(self, whose: object, size: int) -> asyncio.Semaphore:
        return self._shares.setdefault(whose, asyncio.Semaphore(size))
