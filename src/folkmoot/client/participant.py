"""Taking part in trainings, for as long as a program runs."""

from __future__ import annotations

import logging
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from folkmoot.client.hub import Hub, Notification
from folkmoot.client.patience import Patience, Stopped
from folkmoot.client.task import ENDS, Declined, Task, without_outdated
from folkmoot.client.work import Evaluate, Refused, Swag, Train, Worker
from folkmoot.errors import InvalidInput, Misconfigured
from folkmoot.protocol.notifications import NotificationType

logger = logging.getLogger("folkmoot.client")

WAIT_SECONDS = 50
"""How long one poll asks the hub to wait; proxies often cut a connection that is silent for 60 s."""

TAKEN = 0
"""In place of an attempt, which count from 1: what the hub has taken is done, whatever attempt comes after, unless it
says that it was rejected."""


class Participant:
    """Does the work that a hub asks for with the functions marked `@app.train` and `@app.evaluate`.

    It outlives the hub's restarts and a lost network, and trains no round twice because of them. What an exception in
    one of the two functions means only their author knows: it ends `run`.
    """

    def __init__(self, hub: Hub, *, draw: Callable[[], float] = random.random) -> None:
        """`draw` gives the jitter of the pauses between attempts, from 0 to 1."""
        self._hub = hub
        self._patience = Patience(draw)
        self._train: Train | None = None
        self._evaluate: Evaluate | None = None
        self._swag: Swag | None = None
        self._settled: set[tuple[str, str, int, int]] = set()

    @classmethod
    def from_env(cls) -> Self:
        """Find the hub at FOLKMOOT_URL, with the token in FOLKMOOT_TOKEN.

        FOLKMOOT_CA_FILE may name a file with the certificates of a private authority.
        """
        return cls(Hub.from_env())

    def train(self, function: Train) -> Train:
        """Mark the function that trains: `(weights, task) -> (weights, num_examples, metrics)`.

        The arrays are its own to change. `task.progress(percent)` lets the hub show how far it is; `Declined`, raised,
        says that there will be no update in this round. Of any other exception the hub shows the type and the text.
        """
        self._train = function
        return function

    def evaluate(self, function: Evaluate) -> Evaluate:
        """Mark the function that tests a model: `(weights, task) -> (num_examples, metrics)`.

        Calibration statistics (`folkmoot.uncertainty`) may come as a third, or None where there are too few examples.
        Without one the hub is told that this participant has no examples to test with.
        """
        self._evaluate = function
        return function

    def swag(self, function: Swag) -> Swag:
        """Mark the function that makes moments for SWAG: `(weights, task) -> (first, second, num_examples)`.

        Both are as long as all parameters together, in the order of the model's own: their mean over some steps of
        training from `weights` on, and that of their squares. Without one the hub is told that there are none.
        """
        self._swag = function
        return function

    def run(self) -> None:
        """Work until `stop` is called or, in the main thread, SIGTERM arrives.

        Raises NotAuthenticated for a token that the hub does not know, and what the marked functions raise.
        """
        if self._train is None:
            raise Misconfigured("There is nothing to train with: write @app.train above a function.")
        with _at_sigterm(self.stop), self._hub, TemporaryDirectory(prefix="folkmoot-") as folder:
            try:
                self._work(self._train, Worker(self._hub, self._patience, Path(folder)))
            except Stopped:
                logger.info("stopped")

    def stop(self) -> None:
        """End `run`: at once where it waits, else when the task in hand is done. For any thread or signal handler."""
        self._patience.stop()

    def _work(self, train: Train, worker: Worker) -> None:
        last_id: int | None = None
        while True:
            notifications, last_id = self._ask_for_work(last_id)
            for notification in without_outdated(notifications):
                self._answer(notification, train, worker)

    def _ask_for_work(self, after: int | None) -> tuple[list[Notification], int]:
        def poll() -> tuple[list[Notification], int]:
            return self._patience.long_call(lambda: self._hub.notifications(after, wait=WAIT_SECONDS))

        return self._patience.until_settled(poll)

    def _answer(self, notification: Notification, train: Train, worker: Worker) -> None:
        match notification.type:
            case NotificationType.UPDATE_ROUND_START:
                self._once(notification, lambda task: worker.train(train, task))
            case NotificationType.MODEL_TEST_ROUND:
                self._once(notification, lambda task: worker.evaluate(self._evaluate, task))
            case NotificationType.SWAG_ROUND_START:
                self._once(notification, lambda task: worker.swag(self._swag, task))
            case _:
                logger.info("training %s: %s", notification.training_id, notification.type)
                if notification.type in ENDS:
                    worker.forget(notification.training_id)

    def _once(self, notification: Notification, work: Callable[[Task], None]) -> None:
        """Do the work unless it is done: a hub that was restarted may ask again for what it has got."""
        task = Task.of(notification)
        what = (task.training_id, notification.type, task.round)
        done = {(*what, task.attempt)} if task.rejected else {(*what, TAKEN), (*what, task.attempt)}
        if done & self._settled:
            return
        try:
            work(task)
            self._settled |= {(*what, TAKEN), (*what, task.attempt)}
        except Declined as declined:
            logger.info("round %d: declined: %s", task.round, declined)
            self._settled.add((*what, task.attempt))
        except Refused as refused:
            level = logging.ERROR if isinstance(refused.reason, InvalidInput) else logging.WARNING
            logger.log(level, "round %d: not taken: %s", task.round, refused.reason)
            self._settled.add((*what, task.attempt))


@contextmanager
def _at_sigterm(stop: Callable[[], None]) -> Iterator[None]:
    """Python lets only the main thread handle signals; elsewhere the program does it itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda number, frame: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
