"""What is printed of a case: where the files are, and a row for each contender."""

# ruff: noqa: T201 (printing is what it is for)

from __future__ import annotations

from contenders.files import Files
from contenders.race import OURS, WRITING, Case
from contenders.storage import drop_from_cache, file_system, share_in_cache
from contenders.targets import verdicts
from contenders.turn import Result

COLUMNS = ("", "seconds", "fsync", "GB/s", "Folkmoot is", "but for fsync", "memory MB", "models")
WIDTHS = (20, 8, 8, 7, 12, 14, 10, 7)


def print_head(case: Case, files: Files, *, cold: bool) -> None:
    name = " ".join([case.strategy, *(f"{option}={value}" for option, value in case.options.items())])
    size = f"{case.num_updates} x {case.num_parameters:,} parameters, {files.num_bytes / 1e6:,.0f} MB"
    print(f"\n{name}: {size}; {whereabouts(files, cold=cold)}")
    print_line(*COLUMNS)


def whereabouts(files: Files, *, cold: bool) -> str:
    where = file_system(files.base)
    if where == "tmpfs":
        return "files on tmpfs, so in memory" + (" and never cold" if cold else "")
    if cold:
        drop_from_cache(files.updates)
    share = share_in_cache(files.updates)
    if share is None:
        return f"files on {where}, which does not tell whether they are in the page cache"
    return f"files on {where}, {share:.0%} in the page cache" + (" before each turn" if cold else "")


def print_targets(case: Case, results: dict[str, Result], files: Files) -> None:
    for line in verdicts(case, results, files):
        print(f"  {line}", flush=True)


def print_rows(results: dict[str, Result], files: Files) -> None:
    ours = results[OURS]
    for name, result in results.items():
        if "error" in result:
            print(f"{name:<{WIDTHS[0]}} {result['error']}")
        else:
            print_row(name, result, ours, files)
        if "decoding" in result:
            seconds = result["seconds"] + result["decoding"]
            print_row(f"{name} + decoding", {**result, "seconds": seconds}, ours, files)


def print_row(name: str, result: Result, ours: Result, files: Files) -> None:
    seconds, memory = result["seconds"], result["memory"]
    print_line(
        name,
        f"{seconds:.3f}",
        f"{result['fsync']:.3f}" if "fsync" in result else "",
        "" if name == WRITING else f"{files.num_bytes / seconds / 1e9:.2f}",
        *ratios(seconds, ours),
        f"{memory / 1e6:.0f}",
        f"{memory / files.base.stat().st_size:.2f}",
    )
    mean, expected = result.get("mean"), ours.get("mean")
    if mean and expected and abs(mean - expected) > 0.001 * expected:
        print(f"  That is another model: the mean of its absolute values is {mean:.6f}, of ours {expected:.6f}.")


def ratios(seconds: float, ours: Result) -> tuple[str, str]:
    """How many times as fast we are, and would be but for fsync."""
    if "error" in ours:
        return "", ""
    return f"{seconds / ours['seconds']:.2f} x", f"{seconds / (ours['seconds'] - ours['fsync']):.2f} x"


def print_line(name: str, *cells: str) -> None:
    padded = [f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS[1:], strict=True)]
    print(f"{name:<{WIDTHS[0]}}", *padded, flush=True)
