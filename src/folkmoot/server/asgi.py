"""One port, two kinds of request: what waits is answered by ASGI, everything else by Django's WSGI application."""

from __future__ import annotations

import os
from typing import Any, cast

import django
from a2wsgi import WSGIMiddleware
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
            await self._django(scope, _unbroken(receive), send)


def _unbroken(receive: Receive) -> Receive:
    """A body that breaks off is an error to its reader, where the bridge would take it for the body's end."""

    async def receive_or_fail() -> dict[str, Any]:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client has gone")
        return message

    return receive_or_fail


application = Application()
