"""The threads that handle events where there is no broker, and those that look for what is overdue."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from django.conf import settings
from django.db import connections

from folkmoot.server import clock
from folkmoot.server.faults import fault_point
from folkmoot.server.outbox.alarm import alarms
from folkmoot.server.outbox.events import handle_next_event, seconds_until_due
from folkmoot.server.outbox.leases import next_in_turn
from folkmoot.server.outbox.models import Lane
from folkmoot.server.outbox.threads import Threads

logger = logging.getLogger(__name__)

THREADS = {Lane.TRAININGS: 1, Lane.PUSHES: 4, Lane.MODELS: 1}

Sweep = Callable[[], None]


@dataclass(frozen=True)
class _Registered:
    function: Sweep
    every: str
    on_each_machine: bool


_sweeps: list[_Registered] = []


def sweep(*, every: str, on_each_machine: bool = False) -> Callable[[Sweep], Sweep]:
    """Have a function called at the interval that this setting names; it finds what is overdue, if anything is.

    One for the whole hub is enough, but for what looks at a machine's own files.
    """

    def register(function: Sweep) -> Sweep:
        _sweeps.append(_Registered(function, every, on_each_machine))
        return function

    return register


@sweep(every="SWEEP_SECONDS")
def ring_for_due_events() -> None:
    """Events whose pause is over, whose worker has gone, or of which a broker has told nobody."""
    now = clock.now()
    for lane in Lane:
        if next_in_turn(lane, now):
            alarms[lane].ring()


class Workers(Threads):
    """Those that handle events as they come."""

    def __init__(self) -> None:
        threads = {f"{lane}-{number}": lane for lane, count in THREADS.items() for number in range(count)}
        super().__init__({name: partial(self._handle_events, lane) for name, lane in threads.items()})

    def _handle_events(self, lane: Lane) -> None:
        alarm = alarms[lane]
        while not self.stopping.is_set():
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
            if not self.stopping.is_set():
                alarm.wait(since=rings, timeout=pause)
        connections.close_all()


class Sweeper(Threads):
    """A thread for each interval: no deadline waits for all files to be read. Of several processes' none does harm.

    With `of_machine` those sweeps alone that each machine needs.
    """

    def __init__(self, *, of_machine: bool = False) -> None:
        functions: dict[str, list[Sweep]] = defaultdict(list)
        for each in _sweeps:
            if each.on_each_machine or not of_machine:
                functions[each.every].append(each.function)
        super().__init__({f"sweep-{every}": partial(self._run, every, found) for every, found in functions.items()})

    def _run(self, every: str, functions: Sequence[Sweep]) -> None:
        while not self.stopping.wait(getattr(settings, every)):
            for function in functions:
                _call(function)
            # By the next time an idle one may be gone.
            connections.close_all()


def _call(function: Sweep) -> None:
    try:
        fault_point("sweep.begun")
        function()
        fault_point("sweep.done")
    except Exception:
        # One sweep that fails must not keep the others from running.
        logger.exception("sweep %s failed", function.__name__)
        connections.close_all()
