"""Answers to polls that Django has no part in, with the headers that it would give them."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from folkmoot.protocol.paths import NOTIFICATIONS
from folkmoot.server import request_ids
from folkmoot.server.api.content_policy import NOTHING
from folkmoot.server.api.observing import Answered
from folkmoot.server.api.unchanged import etag_of, is_known
from folkmoot.server.api.views.notifications import FULL

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]

HEADERS = {
    "Content-Type": "application/json",
    "Allow": "GET, HEAD, OPTIONS",
    "Cache-Control": "no-store",
    "Content-Security-Policy": NOTHING,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer; a test compares them with those that Django sends."""

TRY_AGAIN_SECONDS = 10
"""Of whom there is no place for; whoever is held has one for up to a minute."""


@dataclass(frozen=True)
class QuickAnswer:
    """`headers` are those that not every answer has; `began` is when it was asked for, by time.perf_counter."""

    scope: Scope
    body: bytes
    began: float
    status: int = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)

    async def send(self, send: Send) -> None:
        request_id = request_ids.taken_or_made(header(self.scope, request_ids.HEADER))
        seconds = time.perf_counter() - self.began
        body = b"" if self.status == HTTPStatus.NOT_MODIFIED else self.body
        with request_ids.on_behalf_of(request_id):
            Answered("GET", NOTIFICATIONS, NOTIFICATIONS, self.status, seconds, sent_bytes=len(body)).note()
        own = {**self.headers, "Content-Length": len(self.body), request_ids.HEADER: request_id}
        headers = [(name.lower().encode(), str(value).encode()) for name, value in (HEADERS | own).items()]
        await send({"type": "http.response.start", "status": int(self.status), "headers": headers})
        await send({"type": "http.response.body", "body": body})


def found_answer(scope: Scope, body: bytes, began: float) -> QuickAnswer:
    """What was found, or that it is what the asker has already."""
    etag = etag_of(body)
    known = is_known(etag, header(scope, "If-None-Match"))
    return QuickAnswer(scope, body, began, HTTPStatus.NOT_MODIFIED if known else HTTPStatus.OK, {"ETag": etag})


def refusal(scope: Scope) -> QuickAnswer:
    """Too many are there already: said before anything is looked up."""
    body = json.dumps({"detail": FULL, "code": "too_many_polls"}).encode()
    headers = {"Retry-After": str(TRY_AGAIN_SECONDS)}
    return QuickAnswer(scope, body, time.perf_counter(), HTTPStatus.TOO_MANY_REQUESTS, headers)


def header(scope: Scope, name: str) -> str:
    return str(dict(scope["headers"]).get(name.lower().encode(), b"").decode("latin-1"))
