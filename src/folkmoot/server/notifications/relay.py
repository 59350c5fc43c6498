"""Wake-ups from one process to the others, by PostgreSQL's NOTIFY: no more than a poll's time is lost if they are.

What is sent within a transaction goes out as that commits. Each web process holds one connection for listening,
however many polls wait in it.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from uuid import UUID

from django.conf import settings
from django.db import Error, connection, connections, transaction
from psycopg import Error as PsycopgError
from psycopg import sql

from folkmoot.server.notifications.wakeups import wakeups

logger = logging.getLogger(__name__)

CHANNEL = "folkmoot_wakeups"
PER_MESSAGE = 200
"""Recipients: PostgreSQL takes less than 8000 bytes at once."""
LOOK_SECONDS = 5
"""How often it is seen whether the listening connection still answers."""
_SELF = secrets.token_hex(8)


def wake_on_commit(recipients: Sequence[UUID]) -> None:
    """Once the caller's transaction commits, let those who wait look again, in whatever process they do."""
    transaction.on_commit(lambda: wakeups.wake(recipients))
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        for some in _batches(recipients):
            message = " ".join([_SELF, *(recipient.hex for recipient in some)])
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, message])


class Listener:
    """The thread that hears what other processes have sent, and wakes the polls of this one."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wake-ups", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, grace: float) -> None:
        """It has nothing to finish."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except (Error, PsycopgError) as error:
                logger.warning("no wake-ups from other processes: %s; trying again", " ".join(str(error).split()))
                self._stopping.wait(settings.SWEEP_SECONDS)
            except Exception:
                # Whoever may write to the channel may send anything: this thread must not be the one that dies.
                logger.exception("no wake-ups from other processes; trying again")
                self._stopping.wait(settings.SWEEP_SECONDS)
            finally:
                connections.close_all()

    def _listen(self) -> None:
        connection.ensure_connection()
        raw = connection.connection
        raw.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
        # Whatever was sent before.
        wakeups.wake_all()
        while not self._stopping.is_set():
            for notify in raw.notifies(timeout=LOOK_SECONDS):
                sender, *recipients = notify.payload.split()
                if sender != _SELF:
                    wakeups.wake([UUID(recipient) for recipient in recipients])
            raw.execute("SELECT 1")


def _batches(recipients: Sequence[UUID]) -> Iterator[list[UUID]]:
    remaining = iter(recipients)
    while some := list(islice(remaining, PER_MESSAGE)):
        yield some
