"""How fast updates are merged, against how fast this machine reads the same files, against Flower and against NVFlare.

For each case, N updates of P float32 values, the contenders take turns, each turn in a process of its own that has
merged something small before:

reading   NumPy's sum over a memory map of each file
writing   one model's bytes to a file, as the result is written: timed are the digest, writing and fsync
Folkmoot  from files to a file: timed are reading, verifying checksums, merging, the digest, writing and fsync; once
          without and once with `scores`, which a hub asks for unless told otherwise
Flower    from messages in memory to a record in memory: timed are deserializing, merging and serializing
NVFlare   from arrays in memory to arrays in memory: timed is merging
decoding  what these two do before with every update that comes, to have it in that form

So the peers are spared the files. `make bench` installs them; `contenders/` has what is called of each.

Printed is the best of several turns: seconds; how much of them fsync took, which is the disk's part; gigabytes of
updates per second; how many times as fast as that Folkmoot is, and would be if fsync took no time; and the most
anonymous memory in any turn, above what the process had when it was warm, in MB and in models. Below are the targets
of the case, met or missed, by the times without decoding, which are the harder ones.
"""

# ruff: noqa: T201 (printing is what it is for)

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from contenders.files import make_files
from contenders.machine import machine
from contenders.race import Case, race
from contenders.table import print_head, print_rows, print_targets

OPTIONS: dict[str, dict[str, Any]] = {
    "FedAvg": {},
    "Median": {},
    "TrimmedMean": {"trim": 0.2},
    "Krum": {"num_byzantine": 4},
}
Sizes = list[tuple[int, int]]
FULL: Sizes = [(10, 1_000_000), (100, 1_000_000), (1000, 100_000), (10, 25_000_000), (50, 25_000_000)]
FULL_ROBUST: Sizes = [(20, 1_000_000)]
QUICK: Sizes = [(10, 1_000_000), (100, 100_000)]
QUICK_ROBUST: Sizes = [(20, 100_000)]

# Enough for whatever is compiled to be compiled; little enough not to leave memory behind that counts.
PARAMETERS_TO_WARM_UP, MOST_TO_WARM_UP = 500_000, 50


def main() -> None:
    options = parse_arguments()
    print(machine())
    print(f"{options.threads} threads for Folkmoot, best of {options.repeats} turns")
    for strategy in options.strategies:
        for num_updates, num_parameters in options.sizes or usual_sizes(strategy, quick=options.quick):
            run(Case(strategy, OPTIONS[strategy], num_updates, num_parameters), options)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few and small cases, for some 20 seconds in all")
    parser.add_argument("--strategy", dest="strategies", action="append", choices=OPTIONS, help="may be repeated")
    parser.add_argument("--size", dest="sizes", action="append", type=size, metavar="N,P", help="may be repeated")
    parser.add_argument("--cold", action="store_true", help="make the system forget the files before each turn")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--folder", type=Path, help="where to put the files (default: the system's temporary folder)")
    options = parser.parse_args()
    options.strategies = options.strategies or list(OPTIONS)
    options.repeats = options.repeats or (2 if options.quick else 5)
    return options


def usual_sizes(strategy: str, *, quick: bool) -> Sizes:
    if strategy == "FedAvg":
        return QUICK if quick else FULL
    return QUICK_ROBUST if quick else FULL_ROBUST


def size(text: str) -> tuple[int, int]:
    num_updates, num_parameters = (int(float(part)) for part in text.split(","))
    return num_updates, num_parameters


def run(case: Case, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        warm_up = make_files(Path(folder, "small"), min(case.num_updates, MOST_TO_WARM_UP), PARAMETERS_TO_WARM_UP)
        files = make_files(Path(folder, "all"), case.num_updates, case.num_parameters)
        print_head(case, files, cold=options.cold)
        turns = {"threads": options.threads, "repeats": options.repeats, "cold": options.cold}
        results = race(case, files, warm_up, **turns)
        print_rows(results, files)
        print_targets(case, results, files)


if __name__ == "__main__":
    main()
