"""The threads of an embedded server: they handle events as they come, and look for what is overdue."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from django.conf import settings
from django.db import connections

from folkmoot.server.outbox.alarm import alarms
from folkmoot.server.outbox.events import handle_next_event, seconds_until_due
from folkmoot.server.outbox.models import Lane

logger = logging.getLogger(__name__)

THREADS = {Lane.TRAININGS: 1, Lane.PUSHES: 4, Lane.MODELS: 1}

Sweep = Callable[[], None]
_sweeps: list[tuple[str, Sweep]] = []


def sweep(*, every: str) -> Callable[[Sweep], Sweep]:
    """Have a function called at the interval that this setting names; it finds what is overdue, if anything is."""

    def register(function: Sweep) -> Sweep:
        _sweeps.append((every, function))
        return function

    return register


class Workers:
    """All threads together."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._handle_events, args=(lane,), name=f"{lane}-{number}", daemon=True)
            for lane, count in THREADS.items()
            for number in range(count)
        ]
        self._threads.append(threading.Thread(target=self._sweep, name="sweep", daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, *, grace: float) -> None:
        """Let each thread finish the event at hand within `grace` seconds; what it does not finish is done again."""
        deadline = time.monotonic() + grace
        self._stopping.set()
        for alarm in alarms.values():
            alarm.ring()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _handle_events(self, lane: Lane) -> None:
        alarm = alarms[lane]
        while not self._stopping.is_set():
            rings = alarm.rings
            try:
                if handle_next_event(lane):
                    continue
                pause = min(settings.SWEEP_SECONDS, max(seconds_until_due(lane) or settings.SWEEP_SECONDS, 0.01))
            except Exception:
                # Whatever it was, mostly the database that does not answer: this thread must not be the one that dies.
                logger.exception("no event can be handled; trying again")
                connections.close_all()
                pause = settings.SWEEP_SECONDS
            if not self._stopping.is_set():
                alarm.wait(since=rings, timeout=pause)
        connections.close_all()

    def _sweep(self) -> None:
        due = {function: time.monotonic() + getattr(settings, every) for every, function in _sweeps}
        while not self._stopping.wait(max(0.0, min(due.values()) - time.monotonic())):
            for every, function in _sweeps:
                if due[function] <= time.monotonic():
                    _call(function)
                    due[function] = time.monotonic() + getattr(settings, every)
        connections.close_all()


def _call(function: Sweep) -> None:
    try:
        function()
    except Exception:
        # One sweep that fails must not keep the others from running.
        logger.exception("sweep %s failed", function.__name__)
        connections.close_all()
