"""One port, two kinds of request: what waits is answered by ASGI, everything else by Django's WSGI application.

Threads only compute: they neither wait for slow senders nor for slow readers.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import django
from a2wsgi import WSGIMiddleware
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "folkmoot.server.settings")
django.setup()

from folkmoot.errors import Unavailable  # noqa: E402 - what follows needs the settings
from folkmoot.server.api.connection import connection_of  # noqa: E402
from folkmoot.server.api.errors import unavailable  # noqa: E402
from folkmoot.server.api.file_answers import HAND_OVER, FileAnswer, hands_over_files  # noqa: E402
from folkmoot.server.api.large_bodies import READ_BY_THREAD, LargeBody, reads_large_bodies  # noqa: E402
from folkmoot.server.api.long_poll import LongPoll, Receive, Scope, Send, send_response  # noqa: E402
from folkmoot.server.api.request_bodies import Body, Turns, is_large  # noqa: E402

THREADS = 16
LARGE_BODIES = 12
"""How many of the threads may be reading large bodies, however many such come: the others answer everybody else."""
READERS = 4
"""Further threads, which read the files that are sent; each for one block at a time."""


class Application:
    """What the server process runs."""

    def __init__(self) -> None:
        self._long_poll = LongPoll()
        # Any: a2wsgi and django-stubs describe the same WSGI in types that do not match.
        django_application = reads_large_bodies(hands_over_files(cast(Any, get_wsgi_application())))
        self._django: Any = WSGIMiddleware(cast(Any, django_application), workers=THREADS)
        self._large_bodies = Turns(LARGE_BODIES)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="read")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._long_poll.answers(scope):
            await self._long_poll(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self._django(scope, receive, send)

    def wait_for_threads(self) -> None:
        """Return once no request is computed any more; after this none can be."""
        self._django.executor.shutdown()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = FileAnswer(send, self._readers, connection_of(scope))
        try:
            await self._answer_in_time(answer, scope, receive)
        except asyncio.CancelledError:
            # The process ends, and has waited for this request for as long as it may. An answer that has begun is
            # left unfinished, which closes the connection.
            if not answer.has_begun:
                await send_response(unavailable(Unavailable("The server is being stopped; try again.")), send)

    async def _answer_in_time(self, answer: FileAnswer, scope: Scope, receive: Receive) -> None:
        try:
            await self._compute({**scope, HAND_OVER: answer.hand_over}, receive, answer.send)
        except Unavailable as error:
            await send_response(unavailable(error), answer.send)
        await answer.finish(receive)

    async def _compute(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = Body(receive, is_large=is_large(scope))
        if is_large(scope):
            async with self._large_bodies.turn(scope):
                await self._compute_large(scope, body, send)
        else:
            await body.read_ahead()
            await self._django(scope, body.receive, send)

    async def _compute_large(self, scope: Scope, body: Body, send: Send) -> None:
        large = LargeBody(body, connection_of(scope))
        try:
            await self._django({**scope, READ_BY_THREAD: large}, body.receive, send)
        except asyncio.CancelledError:
            large.interrupt()
            raise


application = Application()
