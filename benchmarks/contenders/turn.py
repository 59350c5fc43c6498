"""A contender's side of a turn: warm up, get ready, wait for the word, merge, tell.

Every line that goes in or out is one object in JSON. In: a small job to warm up with, the job to be measured, the word
to begin. Out: `memory`, the anonymous bytes after warming up; that it is ready; the result.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]
"""`strategy`, its `options`, `threads`, and the paths `base`, `updates` and `output`."""

Result = dict[str, Any]
"""`seconds`; where there is a new model, the `mean` of its absolute values; and what else there is to tell: of the
seconds those of `fsync`, beside them those of `decoding`, and the bytes of memory that were `given` to it here only.
"""


def take_turn(prepare: Callable[[Job], Callable[[], Result]]) -> None:
    """Merge as `prepare` says; what comes before it returns is not timed, but is counted as memory."""
    answers, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not get between the answers

    def say(answer: Result) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    prepare(next_line())()
    say({"memory": anonymous_bytes("self")})
    merge = prepare(next_line())
    say({})
    next_line()
    say(merge())


def next_line() -> Job:
    job: Job = json.loads(sys.stdin.readline())
    return job


def anonymous_bytes(process: int | str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0) * 1024


class Stopwatch:
    """Stands in for a function and adds up how long its calls take."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: Any) -> Any:
        started = time.perf_counter()
        result = self.function(*arguments)
        self.seconds += time.perf_counter() - started
        return result
