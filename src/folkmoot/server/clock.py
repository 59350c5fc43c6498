"""The time by which leases, deadlines and pauses are measured: one clock for all who share a database.

On PostgreSQL it is the database's, whatever the hosts of the web processes and workers believe. An embedded hub takes
the time of day once, as it starts, and counts on from there: a wall clock that jumps moves no deadline.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from django.db import connection

# Unlike CLOCK_MONOTONIC it goes on while the machine sleeps.
_COUNTER = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_STARTED_AT = datetime.now(UTC)
_STARTED_COUNT = time.clock_gettime(_COUNTER)


def now() -> datetime:
    """The present moment, in UTC; asks PostgreSQL, also within a transaction, whose own time stands still."""
    if connection.vendor != "postgresql":
        return _STARTED_AT + timedelta(seconds=time.clock_gettime(_COUNTER) - _STARTED_COUNT)
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (moment,) = cursor.fetchone()
    return moment.astimezone(UTC)
