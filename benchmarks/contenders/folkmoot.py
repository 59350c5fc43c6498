"""Folkmoot: `aggregate_files`, from files to a file.

Timed is all of it: reading the updates, verifying their checksums, merging, computing the digest, writing, fsync.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from contenders.turn import Job, Result, Stopwatch, take_turn
from contenders.update_file import mean_of
from folkmoot.aggregation import Update, aggregate_files, find_strategy
from folkmoot.tensors import TensorFile


def prepare(job: Job) -> Callable[[], Result]:
    strategy = find_strategy(job["strategy"], job["options"])
    updates = [update(Path(path), number) for number, path in enumerate(job["updates"], start=1)]

    def merge() -> Result:
        # Each checkpoint is a file of its own: a hub never has one take the name of another, which takes its time.
        Path(job["output"]).unlink(missing_ok=True)
        fsync = Stopwatch(os.fsync)
        os.fsync = fsync
        started = time.perf_counter()
        aggregate_files(strategy, Path(job["base"]), updates, Path(job["output"]), threads=job["threads"])
        seconds = time.perf_counter() - started
        os.fsync = fsync.function
        mean = mean_of(TensorFile.open(Path(job["output"])).values())
        return {"seconds": seconds, "fsync": fsync.seconds, "mean": mean}

    return merge


def update(path: Path, number: int) -> Update:
    return Update(f"{number:05}", path, number, checksums=path.with_suffix(".checksums").read_bytes())


if __name__ == "__main__":
    take_turn(prepare)
