"""One port, two kinds of request: what waits is answered by ASGI, everything else by Django's WSGI application."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, cast

import django
from a2wsgi import WSGIMiddleware
from django.conf import settings
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "folkmoot.server.settings")
django.setup()

from folkmoot.server.api.long_poll import LongPoll, Receive, Scope, Send  # noqa: E402 - needs the settings

THREADS = 16
LARGE_BODIES = 12
"""How many of the threads may be reading large bodies, however many such come: the others answer everybody else."""
SMALL_BODY_BYTES = 64 * 1024
"""A body of at most so many bytes is awaited before it takes a thread."""


class Application:
    """What the server process runs."""

    def __init__(self) -> None:
        self._long_poll = LongPoll()
        # Any: a2wsgi and django-stubs describe the same WSGI in types that do not match.
        self._django: Any = WSGIMiddleware(cast(Any, get_wsgi_application()), workers=THREADS)
        self._large_bodies = asyncio.Semaphore(LARGE_BODIES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._long_poll.answers(scope):
            await self._long_poll(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, Body(receive), send)
        else:
            await self._django(scope, receive, send)

    async def _answer(self, scope: Scope, body: Body, send: Send) -> None:
        if _is_large(scope):
            async with self._large_bodies:
                await self._django(scope, body.receive, send)
        else:
            await body.read_ahead()
            await self._django(scope, body.receive, send)


def _is_large(scope: Scope) -> bool:
    """Whether the request has, or may have, more than a small body."""
    headers = dict(scope.get("headers", ()))
    # What is no number has been refused before.
    return b"transfer-encoding" in headers or int(headers.get(b"content-length", 0)) > SMALL_BODY_BYTES


class Body:
    """A request's body as its reader gets it: one that breaks off, or comes too slowly, is an error.

    The bridge would take the one for the body's end, and a thread would wait for the other for ever.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ahead: dict[str, Any] | None = None
        self._failure: OSError | None = None
        self._renew()

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
            return await self._next()
        message, self._ahead = self._ahead, None
        return message

    async def _next(self) -> dict[str, Any]:
        started = time.monotonic()
        async with asyncio.timeout(self._seconds_left):
            message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client has gone")
        # Only the waiting counts, not what the server does with the bytes in between.
        self._seconds_left -= time.monotonic() - started
        self._bytes_wanted -= len(message.get("body", b""))
        if self._bytes_wanted <= 0:
            self._renew()
        return message

    def _renew(self) -> None:
        # A few bytes buy no time: a byte a second would hold a thread as well as none.
        self._seconds_left = settings.BODY_TIMEOUT_SECONDS
        self._bytes_wanted = settings.MIN_BODY_BYTES


application = Application()
