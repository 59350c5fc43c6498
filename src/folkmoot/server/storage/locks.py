"""Locks on files, for which nobody waits long: whoever does holds a thread that others need."""

from __future__ import annotations

import fcntl
import time
from typing import IO, Any

from folkmoot.errors import Unavailable

PATIENCE_SECONDS = 1.0
"""Long enough for what is small; who waits for something large is told to come again."""
PAUSE_SECONDS = 0.01


def lock_soon(file: IO[Any], what: str) -> None:
    """Take the lock on an open file, which ends with it; Unavailable, naming `what`, if another keeps it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _locked(file):
        if time.monotonic() >= deadline:
            raise Unavailable(f"{what} is being worked on; try again.")
        time.sleep(PAUSE_SECONDS)


def _locked(file: IO[Any]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
