"""Ctrl-C at any moment but those in which it would leave something behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """One of `SIGNALS` came; `exit_code` is what a shell gives to a program that it ended."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


class Interrupts:
    """Within this context `SIGNALS` raise Interrupted; after one has ended it, further ones have no effect."""

    def __init__(self) -> None:
        self._deferred = False
        self._pending: int | None = None

    def __enter__(self) -> Self:
        self._previous: dict[int, Any] = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, signal.SIG_IGN if isinstance(error, Interrupted) else previous)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this block nothing is raised; what came meanwhile is raised at its end."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self._pending is not None:
            raise Interrupted(self._pending)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._deferred:
            raise Interrupted(number)
        self._pending = number
