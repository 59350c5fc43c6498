"""What a process takes, from outside: its processor time and its memory. Linux only."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any, Self

MB = 10**6
EVERY_SECONDS = 0.05


def rss_anon(pid: int) -> float:
    """The memory that is its own, in MB; what it has mapped of files is the system's to take back."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0]) / MB


def processor_seconds(pid: int) -> float:
    """Of all its threads, in the system's calls too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_a_process(work: Any, *arguments: Any) -> Any:
    """Call a function in a new process, of which nothing is left afterwards."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


class Watch:
    """Looks at processes all the time in a thread: the most memory that each has had, the first's processor time."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._most = dict.fromkeys(pids, 0.0)
        self._used: list[tuple[float, float]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def most_memory(self, pids: Sequence[int]) -> float:
        """In MB, of the one that has had the most."""
        return max(self._most[pid] for pid in pids)

    def used(self, start: float, stop: float) -> float:
        """Seconds of the first process's processor time between two moments, in seconds since 1970."""
        before = [used for moment, used in self._used if moment <= stop]
        return before[-1] - next(used for moment, used in self._used if moment >= start)

    def _look_on(self) -> None:
        while not self._done.wait(EVERY_SECONDS):
            self._used.append((time.time(), processor_seconds(self._pids[0])))
            for pid in self._pids:
                self._most[pid] = max(self._most[pid], rss_anon(pid))
