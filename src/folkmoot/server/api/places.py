"""Places for those who wait: without an end to them, some would take the connections of all others."""

from __future__ import annotations

import resource
from collections import Counter


class Places:
    """At most `total` polls at a time, of one sender a tenth of that. For the event loop's thread alone."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._of_one = max(total // 10, 1)
        self._taken: Counter[object] = Counter()

    def take(self, sender: object) -> bool:
        """Return False if there is none; who has taken one gives it back."""
        if not self._free or self._taken[sender] >= self._of_one:
            return False
        self._free -= 1
        self._taken[sender] += 1
        return True

    def give_back(self, sender: object) -> None:
        self._free += 1
        self._taken[sender] -= 1
        if not self._taken[sender]:
            del self._taken[sender]


def as_files_allow(wanted: int) -> int:
    """So many polls at once, or fewer where the system lets this process have few files open: each poll is one."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The rest is for everybody else's connections, for models and for the database.
    return wanted if files == resource.RLIM_INFINITY else min(wanted, files * 3 // 4)
