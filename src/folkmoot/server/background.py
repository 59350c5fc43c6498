"""The threads beside a server's requests: with a broker they tell its workers, without one they do the work.

Those of a hub that may have several processes hear of the others' notifications, too.
"""

from __future__ import annotations

import time
from typing import Protocol

from django.conf import settings

from folkmoot.server.notifications.relay import Listener
from folkmoot.server.outbox.worker import Sweeper, Workers


class Threads(Protocol):
    def start(self) -> None: ...

    def stop(self, *, grace: float) -> None: ...


class Background:
    """All of them together."""

    def __init__(self) -> None:
        self._parts = _parts()

    def start(self) -> None:
        for part in self._parts:
            part.start()

    def stop(self, *, grace: float) -> None:
        """Let each finish what it is at within `grace` seconds in all; what is not finished is done again."""
        deadline = time.monotonic() + grace
        for part in self._parts:
            part.stop(grace=max(0.0, deadline - time.monotonic()))


def _parts() -> list[Threads]:
    listeners = [] if settings.EMBEDDED else [Listener()]
    if settings.BROKER_URL:
        # Not before: it makes Celery's application.
        from folkmoot.server.outbox.messenger import Messengers

        return [*listeners, Messengers(), Sweeper(of_machine=True)]
    return [*listeners, Workers(), Sweeper()]
