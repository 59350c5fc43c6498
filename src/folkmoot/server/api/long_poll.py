"""The ASGI part: a poll for notifications that finds none waits without a thread or a database connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.core.signals import request_started
from prometheus_client import Gauge

from folkmoot.protocol.notifications import MAX_WAIT_SECONDS
from folkmoot.protocol.paths import NOTIFICATIONS
from folkmoot.server.api.lookout import Lookout, Question
from folkmoot.server.api.places import Places, as_files_allow
from folkmoot.server.api.quick_answers import found_answer, refusal
from folkmoot.server.api.senders import sender_of
from folkmoot.server.notifications.wakeups import wakeups

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

held = Gauge("folkmoot_long_polls", "Polls for notifications that are being held.")


@dataclass(frozen=True)
class Look:
    """What one look has found; `awaits` is who waits where there is nothing yet, and has asked to wait."""

    send: Callable[[Send], Awaitable[None]]
    awaits: UUID | None = None
    last_id: int = 0
    seconds: float = 0


class LongPoll:
    """Answers GET of the notifications, for those who ask in the usual way by looking for many at once.

    The others, such as browsers, are Django's; `threads` is how many of them are looked for at a time. At most `polls`
    are answered or held at once, FOLKMOOT_MAX_POLLS unless told otherwise, as far as the limit of open files allows.
    """

    def __init__(self, *, threads: int = 4, polls: int | None = None) -> None:
        self._django = BaseHandler()
        self._django.load_middleware()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="poll")
        self._lookout = Lookout()
        self._places = Places(polls or as_files_allow(settings.MAX_POLLS))

    @staticmethod
    def answers(scope: Scope) -> bool:
        return scope["type"] == "http" and scope["path"] == NOTIFICATIONS and scope["method"] == "GET"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = sender_of(scope)
        if not self._places.take(sender):
            await refusal(scope).send(send)
            return
        try:
            await self._answer(scope, receive, send)
        finally:
            self._places.give_back(sender)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        clock = wakeups.clock
        look = await self._look(scope)
        if look.awaits is not None:
            if not await _wait(look.awaits, clock, look.seconds, receive):
                return
            # Asked and authenticated anew: a token that was revoked meanwhile gets nothing.
            query = urlencode({"after": look.last_id})
            look = await self._look({**scope, "query_string": query.encode()})
        await look.send(send)

    async def _look(self, scope: Scope) -> Look:
        began = time.perf_counter()
        question = Question.of(scope)
        found = await self._lookout.look(question) if question else None
        if question is None or found is None:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask_django, scope)
        seconds = min(question.wait, MAX_WAIT_SECONDS)
        return Look(
            found_answer(scope, found.body, began).send,
            found.user_id if seconds and found.is_empty else None,
            found.last_id,
            seconds,
        )

    def _ask_django(self, scope: Scope) -> Look:
        request_started.send(sender=type(self), scope=scope)
        request = ASGIRequest(scope, BytesIO())
        # Any: what Django's own type of a response does not tell, Django REST framework's has.
        response: Any = self._django.get_response(request)
        response.close()
        send = partial(send_response, response)
        if response.status_code != HTTPStatus.OK or response.data["notifications"]:
            return Look(send)
        # Read as the view reads it, which has let nothing else pass than a number, or nothing.
        seconds = min(float(request.GET.get("wait") or 0), MAX_WAIT_SECONDS)
        return Look(send, request.user.pk if seconds else None, response.data["last_id"], seconds)


async def _wait(user_id: UUID, clock: int, seconds: float, receive: Receive) -> bool:
    """Wait until there may be something, or the time is over; return False if the asker has gone."""
    waiting = asyncio.ensure_future(wakeups.wait(user_id, since=clock, timeout=seconds))
    gone = asyncio.ensure_future(disconnected(receive))
    try:
        with held.track_inprogress():
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
