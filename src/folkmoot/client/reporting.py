"""Telling the hub what this participant is doing. A report that is lost is no reason for the work to fail."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from folkmoot.client.hub import Hub
from folkmoot.client.task import Task
from folkmoot.errors import FolkmootError, NotFound
from folkmoot.protocol.states import Doing

logger = logging.getLogger("folkmoot.client")

SHORT_SECONDS = 1.0
"""Of what is over sooner, the hub is not told that it was done: the update that follows says so."""
SECONDS_BETWEEN = 2.0
"""Between two reports of how far the training is."""
MAX_REASON = 2000


class Reporter:
    """Says nothing more of a training whose hub knows no such reports."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._unheard: set[str] = set()
        self._last_percent = -math.inf
        self._timer: threading.Timer | None = None

    @contextmanager
    def during(self, task: Task, doing: Doing) -> Iterator[None]:
        """Say what the block does, once it takes longer than a moment."""
        timer = self._timer = threading.Timer(SHORT_SECONDS, self.say, (task, doing))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            # What is being said is said before anything else is.
            timer.join()

    def say(self, task: Task, doing: Doing, *, percent: float | None = None, reason: str = "") -> None:
        if task.training_id in self._unheard:
            return
        try:
            self._hub.report_progress(task.training_id, task.round, doing, percent=percent, reason=reason[:MAX_REASON])
        except NotFound:
            self._unheard.add(task.training_id)
        except FolkmootError as error:
            logger.debug("round %d: the hub did not hear that this participant is %s: %s", task.round, doing, error)

    def say_percent(self, task: Task, percent: float) -> None:
        """Not more often than every few seconds; what is no number is left out."""
        now = time.monotonic()
        if not math.isfinite(percent) or now - self._last_percent < SECONDS_BETWEEN:
            return
        self._last_percent = now
        if self._timer is not None:
            # It says less, and would be the last word.
            self._timer.cancel()
        self.say(task, Doing.TRAINING, percent=min(max(float(percent), 0.0), 100.0))
