"""The alarm clocks of the workers in this process. A lost ring costs a sweep's time, never an event."""

from __future__ import annotations

import threading

from folkmoot.server.outbox.models import Lane


class Alarm:
    """Rings are counted, so that one that comes between looking and waiting is not missed."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings = 0

    @property
    def rings(self) -> int:
        return self._rings

    def ring(self) -> None:
        with self._condition:
            self._rings += 1
            self._condition.notify_all()

    def wait(self, *, since: int, timeout: float) -> None:
        """Return once it has rung more than `since` times, or after `timeout` seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._rings > since, timeout)


alarms = {lane: Alarm() for lane in Lane}
