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


class Application:
    """What the server process runs."""

    def __init__(self) -> None:
        self._long_poll = LongPoll()
        # Any: a2wsgi and django-stubs describe the same WSGI in types that do not match.
        self._django: Any = WSGIMiddleware(cast(Any, get_wsgi_application()), workers=THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._long_poll.answers(scope):
            await self._long_poll(scope, receive, send)
        else:
            await self._django(scope, Body(receive).receive, send)


class Body:
    """A request's body as its reader gets it: one that breaks off, or comes too slowly, is an error.

    The bridge would take the one for the body's end, and a thread would wait for the other for ever.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._renew()

    async def receive(self) -> dict[str, Any]:
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
