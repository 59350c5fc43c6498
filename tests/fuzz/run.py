"""Fuzz every reader of uploaded bytes: spoiled files are refused with a FolkmootError or read, within bounds.

Anything else is a finding: another exception, a crash, more than 5 s of processor time, more memory than the file's
size and 64 MiB, and any attempt to import, run, or open something. A finding is kept as a file, to be tried again:
python tests/fuzz/run.py --reader torch --again FILE
"""

# ruff: noqa: T201 (printing is what it is for)

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from readers import READERS
from trial import Trial, work

MOST_FINDINGS = 20  # of one reader; more of them are the same


def main() -> None:
    options = parse_arguments()
    if options.again:
        again(options)
        return
    print(f"{options.seconds} s for each reader, {options.jobs} at a time, seed {options.seed}", flush=True)
    print(f"{'reader':>12} {'files':>9} {'taken':>8} {'refused':>9} {'per s':>7}  findings", flush=True)
    with ThreadPoolExecutor(options.jobs) as jobs:
        findings = sum(jobs.map(lambda name: fuzzed(name, options), options.reader))
    print(f"{findings} findings, in {options.findings}" if findings else "nothing found", flush=True)
    sys.exit(bool(findings))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="for each reader (default: 60)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="readers at a time")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6, help="the same seed makes the same files")
    parser.add_argument("--reader", action="append", choices=READERS, help="may be repeated (default: all)")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="the folder for them")
    parser.add_argument("--again", type=Path, metavar="FILE", help="try one file with the one --reader that is named")
    options = parser.parse_args()
    options.reader = options.reader or list(READERS)
    return options


def fuzzed(name: str, options: argparse.Namespace) -> int:
    """Fuzz one reader, in processes of its own: after a finding the next one goes on."""
    deadline, counts, findings = time.monotonic() + options.seconds, Counter[str](), 0
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        while findings < MOST_FINDINGS and (left := deadline - time.monotonic()) > 0:
            why = in_a_process(name, Path(folder), left, f"{options.seed}-{findings}", counts)
            if not why:
                break
            findings += 1
            keep(name, Path(folder, "input"), why, options, findings)
    per_second = sum(counts.values()) / options.seconds
    line = f"{sum(counts.values()):>9,} {counts['taken']:>8,} {counts['refused']:>9,} {per_second:>7,.0f}  {findings}"
    print(f"{name:>12} {line}", flush=True)
    return findings


def _memory() -> str | None:
    """Where files are not written to a disk, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def in_a_process(name: str, folder: Path, seconds: float, seed: str, counts: Counter[str]) -> str:
    """Return why it ended before its time, or nothing."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=work, args=(name, folder, seconds, seed, sender))
    process.start()
    sender.close()
    why = "it died"
    try:
        while receiver.poll(seconds + 60):
            kind, value = receiver.recv()
            if kind == "counts":
                counts.update(value)
            else:
                why = value
                break
        else:
            why = "it hangs"
    except EOFError:
        pass
    process.kill()
    process.join()
    return why


def keep(name: str, file: Path, why: str, options: argparse.Namespace, number: int) -> None:
    options.findings.mkdir(exist_ok=True)
    kept = options.findings / f"{name.replace(' ', '-')}-{options.seed}-{number}"
    if file.exists():
        shutil.copy(file, kept)
    kept.with_name(f"{kept.name}.txt").write_text(why)
    print(
        f"{name}: {why.strip().splitlines()[-1]}\n    python tests/fuzz/run.py --reader {name!r} --again {kept}",
        flush=True,
    )


def again(options: argparse.Namespace) -> None:
    (name,) = options.reader
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "input")
        shutil.copy(options.again, path)
        print(Trial(READERS[name], Path(folder)).attempt())


if __name__ == "__main__":
    main()
