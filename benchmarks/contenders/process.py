"""One turn of one contender, in a process of its own; `turn` is the other side of it."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from contenders.turn import Job, Result, anonymous_bytes

BENCHMARKS = Path(__file__).parents[1]


class Failed(Exception):
    """The process ended without a result; the message is its last words."""


def take_turn(python: Path, module: str, *, warm_up: Job, job: Job, before: Callable[[], None]) -> Result:
    """Run a contender; `before` is called when everything is ready and the clock has not started.

    `memory` in the result is by how many anonymous bytes the process grew at most, from the end of its warming up.
    """
    with tempfile.TemporaryFile("w+") as log, Process([str(python), "-m", f"contenders.{module}"], log) as process:
        at_first = process.ask(warm_up)["memory"]
        process.ask(job)
        before()
        with PeakMemory(process.pid) as peak:
            result = process.ask({})
        return {**result, "memory": peak.num_bytes - at_first - result.get("given", 0)}


class Process:
    """A process that answers each line with a line."""

    def __init__(self, command: list[str], log: IO[str]) -> None:
        self._log = log
        self._popen = subprocess.Popen(  # noqa: S603 (nothing of it comes from outside)
            command, cwd=BENCHMARKS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        self.pid = self._popen.pid

    def __enter__(self) -> Process:
        return self

    def ask(self, question: Job) -> Result:
        """Raises Failed if the process ends instead of answering."""
        assert self._popen.stdin is not None  # noqa: S101 (both are pipes)
        assert self._popen.stdout is not None  # noqa: S101
        try:
            print(json.dumps(question), file=self._popen.stdin, flush=True)
        except BrokenPipeError:
            raise Failed(self._last_words()) from None
        if line := self._popen.stdout.readline():
            answer: Result = json.loads(line)
            return answer
        raise Failed(self._last_words())

    def _last_words(self) -> str:
        status = self._popen.wait()
        self._log.seek(0)
        lines = self._log.read().split("\n")
        return next((line for line in reversed(lines) if line.strip()), f"ended with status {status}")

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.wait()


class PeakMemory:
    """Looks at a process every few milliseconds, from outside: nothing that it computes can keep us from looking."""

    def __init__(self, pid: int) -> None:
        self.num_bytes = anonymous_bytes(pid)
        self._pid, self._done = pid, threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._done.wait(0.005):
            self.num_bytes = max(self.num_bytes, anonymous_bytes(self._pid))

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
