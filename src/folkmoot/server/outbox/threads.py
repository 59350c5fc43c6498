"""Threads that are started and stopped together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from folkmoot.server.outbox.alarm import alarms


class Threads:
    """A thread for each kind of work, by its name; it is to return soon once `stopping` is set and the alarms ring."""

    def __init__(self, work: Mapping[str, Callable[[], None]]) -> None:
        self.stopping = threading.Event()
        self._threads = [threading.Thread(target=do, name=name, daemon=True) for name, do in work.items()]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, *, grace: float) -> None:
        """Let each finish what it is at within `grace` seconds; what is not finished is found by a sweep, and done."""
        deadline = time.monotonic() + grace
        self.stopping.set()
        for alarm in alarms.values():
            alarm.ring()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
