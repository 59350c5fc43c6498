"""How fast FedAvg merges update files, against how fast this machine can read the same files.

Prints, for N updates of P float32 values: gigabytes of updates merged per second, the same divided by the
machine's own reading speed (NumPy's sum over a memory map, in the same run and by as many threads), and the peak of
anonymous memory in models, each measured in a process of its own.
"""

# ruff: noqa: T201 (printing is what it is for)

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from folkmoot.aggregation import Update, aggregate_files, find_strategy
from folkmoot.tensors import TensorFile, write_tensors

FULL = [(10, 1_000_000), (100, 1_000_000), (10, 25_000_000)]
QUICK = [(10, 100_000), (100, 100_000)]


def main() -> None:
    options = parse_arguments()
    print(f"{options.threads} threads, best of {options.repeats}", file=sys.stderr)
    print(f"{'N':>5} {'P':>11} {'merge GB/s':>11} {'read GB/s':>10} {'merge/read':>11} {'memory/model':>13}")
    for num_updates, num_parameters in options.sizes:
        result = measure(num_updates, num_parameters, options)
        print(
            f"{num_updates:>5} {num_parameters:>11,} {result['merge']:>11.2f} {result['read']:>10.2f}"
            f" {result['merge'] / result['read']:>11.2f} {result['memory']:>13.2f}",
            flush=True,
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, for a few seconds in all")
    parser.add_argument("--size", dest="sizes", action="append", type=size, metavar="N,P", help="may be repeated")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to put the files (default: the system's temporary folder)")
    options = parser.parse_args()
    options.sizes = options.sizes or (QUICK if options.quick else FULL)
    return options


def size(text: str) -> tuple[int, int]:
    num_updates, num_parameters = (int(float(part)) for part in text.split(","))
    return num_updates, num_parameters


def measure(num_updates: int, num_parameters: int, options: argparse.Namespace) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        updates = make_updates(folder, num_updates, num_parameters)
        num_bytes = sum(path.stat().st_size for path in updates)
        read, merge, memory = 0.0, 0.0, 0.0
        for _ in range(options.repeats):  # taking turns, so that both see the same moods of the machine
            read = max(read, num_bytes / in_a_process(read_all, updates, options.threads)["seconds"])
            result = in_a_process(merge_all, updates, options.threads)
            merge = max(merge, num_bytes / result["seconds"])
            memory = max(memory, result["memory"] / (num_bytes / num_updates))
    finally:
        shutil.rmtree(folder)
    return {"read": read / 1e9, "merge": merge / 1e9, "memory": memory}


def make_updates(folder: Path, num_updates: int, num_parameters: int) -> list[Path]:
    """Write one update of three tensors for each participant; they differ, as real ones do."""
    random = np.random.default_rng(0)
    values = random.standard_normal(num_parameters, dtype=np.float32)
    first, second = num_parameters // 2, num_parameters * 9 // 10
    paths = [folder / f"{number:05}" for number in range(num_updates)]
    for path in paths:
        values += 0.5
        write_tensors(path, {"a": values[:first], "b": values[first:second], "c": values[second:]})
    return paths


def merge_all(updates: list[Path], threads: int) -> dict[str, float]:
    strategy = find_strategy("FedAvg", {})
    participants = [Update(path.name, path, number + 1) for number, path in enumerate(updates)]
    output = updates[0].with_name("output")
    with PeakMemory() as peak:
        report = aggregate_files(strategy, updates[0], participants, output, threads=threads)
    return {"seconds": report.seconds, "memory": peak.num_bytes}


def read_all(updates: list[Path], threads: int) -> dict[str, float]:
    def read(path: Path) -> float:
        return sum(float(tensor.sum()) for tensor in TensorFile.open(path).values())

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, updates))
    return {"seconds": time.perf_counter() - started}


class PeakMemory:
    """Samples the anonymous memory of this process; `num_bytes` is what it grew by at most."""

    def __enter__(self) -> PeakMemory:
        self.num_bytes, self._start, self._done = 0, anonymous_bytes(), threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._done.wait(0.005):
            self.num_bytes = max(self.num_bytes, anonymous_bytes() - self._start)

    def __exit__(self, *_: object) -> None:
        self.num_bytes = max(self.num_bytes, anonymous_bytes() - self._start)
        self._done.set()
        self._thread.join()


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def in_a_process(work: Callable[[list[Path], int], dict[str, float]], *arguments: Any) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


if __name__ == "__main__":
    main()
