"""The id of the request on whose behalf something is done: in the answer, in every line of the log, in its events."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

HEADER = "X-Request-ID"
MAX_LENGTH = 64
_ACCEPTABLE = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_LENGTH}}}")

_current: ContextVar[str] = ContextVar("request_id", default="")


def current() -> str:
    """Empty where nobody has asked for what is being done."""
    return _current.get()


def taken_or_made(given: str) -> str:
    """The id that a caller or a proxy has given, if it can be one; else a new one."""
    return given if _ACCEPTABLE.fullmatch(given) else uuid.uuid4().hex


@contextmanager
def on_behalf_of(request_id: str) -> Iterator[None]:
    """What this thread does meanwhile is done for this request."""
    token = _current.set(request_id)
    try:
        yield
    finally:
        _current.reset(token)


class RequestIdFilter(logging.Filter):
    """Gives every record the id, as `request_id`; `-` where there is none."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current() or "-"
        return True
