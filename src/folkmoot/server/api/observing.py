"""What is known of each request from outside: its id, how long it took, how many bytes went in and out."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from prometheus_client import Counter, Histogram

from folkmoot.server import request_ids

GetResponse = Callable[[HttpRequest], HttpResponseBase]

logger = logging.getLogger("folkmoot.access")

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)

requests = Counter("folkmoot_http_requests", "Requests answered.", ("method", "route", "status"))
durations = Histogram(
    "folkmoot_http_request_seconds",
    "Time to answer, without the time that a long poll is held or a file is sent.",
    ("route",),
    buckets=SECONDS,
)
received = Counter("folkmoot_http_received_bytes", "Bytes of the bodies of requests, as announced.", ("route",))
sent = Counter("folkmoot_http_sent_bytes", "Bytes of the bodies of answers, as announced.", ("route",))


def observe(get_response: GetResponse) -> GetResponse:
    """Django middleware, the outermost: number, count and log each request."""

    def answer(request: HttpRequest) -> HttpResponseBase:
        began = time.perf_counter()
        with request_ids.on_behalf_of(request_ids.taken_or_made(request.headers.get(request_ids.HEADER, ""))):
            response = get_response(request)
            response[request_ids.HEADER] = request_ids.current()
            _answered(request, response, time.perf_counter() - began).note()
        return response

    return answer


@dataclass(frozen=True)
class Answered:
    """A request with its answer; `route` is the pattern and not the path: there are as many paths as models."""

    method: str
    path: str
    route: str
    status: int
    seconds: float
    received_bytes: int = 0
    sent_bytes: int = 0

    def note(self) -> None:
        """Count and log it."""
        method = self.method if self.method in METHODS else "other"
        requests.labels(method, self.route, self.status).inc()
        durations.labels(self.route).observe(self.seconds)
        received.labels(self.route).inc(self.received_bytes)
        sent.labels(self.route).inc(self.sent_bytes)
        if logger.isEnabledFor(logging.INFO):
            milliseconds = round(1000 * self.seconds)
            facts = {"method": method, "route": self.route, "status": self.status, "milliseconds": milliseconds}
            logger.info("%s %s %d in %d ms", self.method, self.path, self.status, milliseconds, extra=facts)


def _answered(request: HttpRequest, response: HttpResponseBase, seconds: float) -> Answered:
    return Answered(
        str(request.method),
        request.path,
        _readable(request.resolver_match.route) if request.resolver_match else "unknown",
        response.status_code,
        seconds,
        _announced(request.META.get("CONTENT_LENGTH", "")),
        _announced(response.headers.get("Content-Length", "")),
    )


@cache
def _readable(pattern: str) -> str:
    """`/api/models/<pk>/` of the router's regular expressions."""
    return "/" + re.sub(r"\(\?P<(\w+)>[^)]*\)", r"<\1>", pattern).replace("^", "").rstrip("$\\Z")


def _announced(length: str | None) -> int:
    return int(length) if length and length.isascii() and length.isdigit() else 0
