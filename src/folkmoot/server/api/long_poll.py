"""The ASGI part: a poll for notifications that finds none waits without a thread or a database connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any
from urllib.parse import urlencode

from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.core.signals import request_started

from folkmoot.protocol.notifications import MAX_WAIT_SECONDS
from folkmoot.protocol.paths import NOTIFICATIONS
from folkmoot.server.notifications.wakeups import wakeups

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class LongPoll:
    """Answers GET of the notifications; `threads` is how many look at once, however many wait."""

    def __init__(self, *, threads: int = 4) -> None:
        self._django = BaseHandler()
        self._django.load_middleware()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="poll")

    @staticmethod
    def answers(scope: Scope) -> bool:
        return scope["type"] == "http" and scope["path"] == NOTIFICATIONS and scope["method"] == "GET"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        clock = wakeups.clock
        request, response = await self._look(scope)
        # Read as the view reads it, which has let nothing else pass than a number, or nothing.
        seconds = min(float(request.GET.get("wait") or 0), MAX_WAIT_SECONDS) if response.status_code == 200 else 0
        if seconds and not response.data["notifications"]:
            if not await _wait(request, clock, seconds, receive):
                return
            # Asked and authenticated anew: a token that was revoked meanwhile gets nothing.
            query = urlencode({"after": response.data["last_id"]})
            _, response = await self._look({**scope, "query_string": query.encode()})
        await send_response(response, send)

    async def _look(self, scope: Scope) -> tuple[ASGIRequest, Any]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, scope)

    def _answer(self, scope: Scope) -> tuple[ASGIRequest, Any]:
        request_started.send(sender=type(self), scope=scope)
        request = ASGIRequest(scope, BytesIO())
        response = self._django.get_response(request)
        response.close()
        return request, response


async def _wait(request: ASGIRequest, clock: int, seconds: float, receive: Receive) -> bool:
    """Wait until there may be something, or the time is over; return False if the asker has gone."""
    waiting = asyncio.ensure_future(wakeups.wait(request.user.pk, since=clock, timeout=seconds))
    gone = asyncio.ensure_future(disconnected(receive))
    try:
        await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
        return not gone.done()
    finally:
        waiting.cancel()
        gone.cancel()


async def disconnected(receive: Receive) -> None:
    """Wait until the other side has gone; what it still sends is thrown away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_response(response: Any, send: Send) -> None:
    """Send a response of Django's that has its content in memory."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.items()]
    cookies = [(b"set-cookie", morsel.OutputString().encode("latin-1")) for morsel in response.cookies.values()]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers + cookies})
    await send({"type": "http.response.body", "body": response.content})
