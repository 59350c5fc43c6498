"""Named points at which a test may have the process killed, to see what a restart makes of it."""

from __future__ import annotations

import os
import signal

from django.conf import settings

_passed: dict[str, int] = {}


def fault_point(name: str) -> None:
    """Die here, as by `kill -9`, if FOLKMOOT_TEST_FAULT names this point; `name:3` means the third time."""
    if not settings.TEST_FAULT:
        return
    wanted, _, occurrence = settings.TEST_FAULT.partition(":")
    _passed[name] = _passed.get(name, 0) + 1
    if name == wanted and _passed[name] == int(occurrence or 1):
        os.kill(os.getpid(), signal.SIGKILL)
