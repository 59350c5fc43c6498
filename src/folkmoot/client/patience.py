"""Waiting for a hub, in ways that can be called off."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from folkmoot.client.retry import until_settled

Answer = TypeVar("Answer")


class Stopped(Exception):
    """The waiting was called off."""


class Patience:
    """Every way of waiting here raises Stopped, at once, when `stop` is called, and from then on."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        """`draw` gives the jitter of the pauses between attempts, from 0 to 1."""
        self._draw = draw
        self._stopped = False
        # A SimpleQueue, since a signal handler may put into it at any moment; the lock of an Event might be taken.
        self._outcomes: SimpleQueue[Callable[[], Any]] = SimpleQueue()

    def stop(self) -> None:
        """For any thread or signal handler."""
        self._stopped = True
        self._outcomes.put(_stop)

    def until_settled(self, call: Callable[[], Answer]) -> Answer:
        """Repeat `call` until its outcome would not change; an attempt that has begun is not called off."""
        return until_settled(call, sleep=self.pause, draw=self._draw)

    def pause(self, seconds: float) -> None:
        try:
            self._outcomes.get(timeout=seconds)()
        except Empty:
            return

    def long_call(self, call: Callable[[], Answer]) -> Answer:
        """Do a call that takes long by design in another thread, since nothing can interrupt one that reads a socket.

        When it is called off, the thread is left to itself, and what it gets is forgotten.
        """
        if self._stopped:
            raise Stopped
        threading.Thread(target=lambda: self._outcomes.put(_outcome(call)), daemon=True).start()
        answer: Answer = self._outcomes.get()()
        return answer


def _stop() -> None:
    raise Stopped


def _outcome(call: Callable[[], Answer]) -> Callable[[], Answer]:
    """A function that returns what `call` returned, or raises what it raised."""
    try:
        answer = call()
    except Exception as error:
        return _raiser(error)
    return lambda: answer


def _raiser(error: Exception) -> Callable[[], Any]:
    def again() -> None:
        raise error

    return again
