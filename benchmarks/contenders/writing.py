"""The result alone: a model's bytes are written as aggregation writes them, with their SHA-256 and fsync, in blocks.

Whoever merges has to do that, too: no merging is quicker than reading and this together, unless the two overlap.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from contenders.turn import Job, Result, Stopwatch, take_turn
from folkmoot.tensors import TensorFile, write_tensors


def prepare(job: Job) -> Callable[[], Result]:
    model = TensorFile.open(Path(job["base"]))

    def write() -> Result:
        # Each checkpoint is a file of its own: a hub never has one take the name of another, which takes its time.
        Path(job["output"]).unlink(missing_ok=True)
        fsync = Stopwatch(os.fsync)
        os.fsync = fsync
        started = time.perf_counter()
        write_tensors(Path(job["output"]), model)
        seconds = time.perf_counter() - started
        os.fsync = fsync.function
        return {"seconds": seconds, "fsync": fsync.seconds}

    return write


if __name__ == "__main__":
    take_turn(prepare)
