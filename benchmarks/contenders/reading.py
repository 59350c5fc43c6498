"""The machine itself: NumPy's sum over a memory map of each file, by `threads` threads."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from contenders.turn import Job, Result, take_turn
from folkmoot.tensors import TensorFile


def prepare(job: Job) -> Callable[[], Result]:
    offset = TensorFile.open(Path(job["base"])).data_offset

    def add_up(path: str) -> float:
        with Path(path).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return float(np.frombuffer(mapped, np.float32, offset=offset).sum())

    def read() -> Result:
        started = time.perf_counter()
        with ThreadPoolExecutor(job["threads"]) as pool:
            list(pool.map(add_up, job["updates"]))
        return {"seconds": time.perf_counter() - started}

    return read


if __name__ == "__main__":
    take_turn(prepare)
