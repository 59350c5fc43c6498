"""What Folkmoot is to reach in each case, and whether it did."""

from __future__ import annotations

from collections.abc import Iterator

from contenders.files import Files
from contenders.race import OURS, READING, WRITING, Case
from contenders.turn import Result

BANDWIDTH_FROM_BYTES = 400_000_000
SHARE_OF_BANDWIDTH = 0.5
TIMES_AS_FAST = {
    ("FedAvg", "Flower"): 10,
    ("FedAvg", "NVFlare"): 5,
    ("Median", "Flower"): 10,
    ("TrimmedMean", "Flower"): 10,
    ("Krum", "Flower"): 4,
}
MOST_MEMORY_BYTES, MOST_MEMORY_MODELS = 64_000_000, 0.2


def verdicts(case: Case, results: dict[str, Result], files: Files) -> Iterator[str]:
    """A line for each target of the case; nothing where ours failed."""
    ours = results[OURS]
    if "error" in ours:
        return
    if case.strategy == "FedAvg" and files.num_bytes >= BANDWIDTH_FROM_BYTES:
        share = results[READING]["seconds"] / ours["seconds"]
        yield verdict(share >= SHARE_OF_BANDWIDTH, f"{share:.0%} of {READING}", f"at least {SHARE_OF_BANDWIDTH:.0%}")
        yield floor(ours, results)
    for peer in ("Flower", "NVFlare"):
        wanted, result = TIMES_AS_FAST.get((case.strategy, peer)), results[peer]
        if wanted and "error" not in result:
            ratio = result["seconds"] / ours["seconds"]
            decoded = (result["seconds"] + result["decoding"]) / ours["seconds"]
            yield verdict(
                ratio >= wanted, f"{ratio:.1f} x {peer} ({decoded:.1f} x with decoding)", f"at least {wanted} x"
            )
    most = MOST_MEMORY_BYTES + MOST_MEMORY_MODELS * files.base.stat().st_size
    yield verdict(ours["memory"] <= most, f"{ours['memory'] / 1e6:.0f} MB of memory", f"at most {most / 1e6:.0f} MB")


def verdict(is_met: bool, reached: str, wanted: str) -> str:
    return f"{'met' if is_met else 'MISSED'}: {reached}, {wanted}"


def floor(ours: Result, results: dict[str, Result]) -> str:
    """Reading all updates and then writing the result, with nothing computed but the result's digest."""
    seconds = results[READING]["seconds"] + results[WRITING]["seconds"]
    times = ours["seconds"] / seconds
    return f"floor: {seconds:.3f} s for {READING}, and {WRITING} after that; merging takes {times:.2f} times as long"
