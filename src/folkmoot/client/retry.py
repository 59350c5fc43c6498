"""Trying again until there is an answer that settles the matter."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import TypeVar

from folkmoot.client.answers import Busy
from folkmoot.errors import DigestMismatch, FolkmootError, IncompleteRequest, Internal, Unavailable

logger = logging.getLogger("folkmoot.client")

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0

INCONCLUSIVE = (Unavailable, Internal, DigestMismatch, IncompleteRequest)
"""A fault on the way, or of the server's own: the same request may well succeed later."""

Answer = TypeVar("Answer")


def until_settled(
    call: Callable[[], Answer], *, sleep: Callable[[float], None], draw: Callable[[], float] = random.random
) -> Answer:
    """Repeat `call` until it returns, or raises an error that would come again.

    `sleep` may raise, to give up; `draw` gives a number from 0 to 1.
    """
    attempt = 0
    while True:
        try:
            return call()
        except INCONCLUSIVE as error:
            seconds = pause(attempt, error, draw())
            logger.warning("%s; trying again in %.1f s", error, seconds)
            sleep(seconds)
            attempt += 1


def pause(attempt: int, error: FolkmootError, drawn: float) -> float:
    """Seconds to wait after attempt 0, 1, ...: exponential backoff with full jitter, after what the hub asked for.

    Full jitter, since after a restart all participants come at once:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    asked_for = error.retry_after if isinstance(error, Busy) else 0.0
    # 2.0**attempt would overflow after a night without the hub.
    return asked_for + drawn * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt, 10))
