"""The threads that tell Celery's workers of new events, so that no request waits for the broker."""

from __future__ import annotations

import logging
import threading
from functools import partial

from folkmoot.server.faults import fault_point
from folkmoot.server.outbox.alarm import alarms
from folkmoot.server.outbox.celery import ask
from folkmoot.server.outbox.models import Lane
from folkmoot.server.outbox.threads import Threads

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 16
"""Messages for as many events at most; whoever gets one handles further events, too."""


class Messengers(Threads):
    """One for each lane; to be made in the process that uses it, since threads do not survive a fork."""

    def __init__(self) -> None:
        super().__init__({f"tell-{lane}": partial(self._tell, lane, alarms[lane].rings) for lane in Lane})
        self._broker_is_away = threading.Event()

    def _tell(self, lane: Lane, told: int) -> None:
        alarm = alarms[lane]
        while not self.stopping.is_set():
            alarm.wait(since=told, timeout=threading.TIMEOUT_MAX)
            rings = alarm.rings
            for _ in range(min(rings - told, MOST_AT_ONCE)):
                if not self._ask(lane):
                    break
            told = rings

    def _ask(self, lane: Lane) -> bool:
        try:
            fault_point("message.before_sending")
            ask(lane)
            fault_point("message.sent")
        except Exception as error:  # each kind of broker has errors of its own, with nothing in common
            if not self._broker_is_away.is_set():
                logger.warning("the broker does not answer (%s); the sweep will find what is to be done", error)
            self._broker_is_away.set()
            return False
        if self._broker_is_away.is_set():
            logger.warning("the broker answers again")
            self._broker_is_away.clear()
        return True
