"""Who takes part in a case, and the turns that they take."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contenders.files import Files
from contenders.process import BENCHMARKS, Failed, take_turn
from contenders.storage import drop_from_cache
from contenders.turn import Job, Result

OURS, READING, WRITING = "Folkmoot", "reading, 2 threads", "writing the result"

ENVIRONMENTS = BENCHMARKS.parent / "build" / "bench"

ONCE_IS_ENOUGH_BYTES = 2_000_000_000
"""Of updates; above this a peer takes one turn only."""


@dataclass(frozen=True)
class Case:
    strategy: str
    options: dict[str, Any]
    num_updates: int
    num_parameters: int


@dataclass(frozen=True)
class Contender:
    name: str
    module: str
    threads: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    """Beside those of the case."""
    python: Path = Path(sys.executable)


@dataclass(frozen=True)
class Peer(Contender):
    """A contender of another project, in a virtual environment that `make bench` makes."""

    models: Callable[[Case], int | None] = lambda case: None
    """About how many models it holds in memory at once; None: it has no such strategy."""


def contenders(threads: int) -> list[Contender]:
    return [
        Contender("reading, 1 thread", "reading", threads=1),
        Contender(READING, "reading", threads=2),
        Contender(WRITING, "writing"),
        Contender(OURS, "folkmoot", threads=threads),
        Contender(f"{OURS}, scores", "folkmoot", threads=threads, options={"scores": True}),
        peer("Flower", "flower", lambda case: case.num_updates * (1 if case.strategy == "FedAvg" else 5) + 5),
        peer("NVFlare", "nvflare", lambda case: case.num_updates + 6 if case.strategy == "FedAvg" else None),
    ]


def peer(name: str, module: str, models: Callable[[Case], int | None]) -> Peer:
    return Peer(name, module, python=ENVIRONMENTS / module / "bin" / "python", models=models)


def race(case: Case, files: Files, warm_up: Files, *, threads: int, repeats: int, cold: bool) -> dict[str, Result]:
    """Return the best result of each contender, or its `error`; `memory` is the most that it took in any turn."""

    def before() -> None:
        files.output.unlink(missing_ok=True)  # on a hub no checkpoint takes the place of another
        drop_from_cache([files.base, *files.updates] if cold else [])

    best: dict[str, Result] = {}
    for turn in range(repeats):  # taking turns, so that all see the same moods of the machine
        for contender in contenders(threads):
            so_far = best.get(contender.name)
            if so_far and ("error" in so_far or is_enough(contender, files, turn)):
                continue
            best[contender.name] = better(so_far, attempt(contender, case, files, warm_up, before))
    return best


def is_enough(contender: Contender, files: Files, turn: int) -> bool:
    return isinstance(contender, Peer) and turn > 0 and files.num_bytes > ONCE_IS_ENOUGH_BYTES


def attempt(contender: Contender, case: Case, files: Files, warm_up: Files, before: Callable[[], None]) -> Result:
    if isinstance(contender, Peer) and (reason := why_not(contender, case, files)):
        return {"error": reason}

    def job(of: Files) -> Job:
        paths = {"base": str(of.base), "updates": [str(path) for path in of.updates], "output": str(of.output)}
        options = {**case.options, **contender.options}
        return {"strategy": case.strategy, "options": options, "threads": contender.threads, **paths}

    try:
        return take_turn(contender.python, contender.module, warm_up=job(warm_up), job=job(files), before=before)
    except Failed as error:
        return {"error": str(error)}


def why_not(peer: Peer, case: Case, files: Files) -> str | None:
    if not (ENVIRONMENTS / peer.module / "installed").exists():
        return not_installed(ENVIRONMENTS / f"{peer.module}.log")
    models = peer.models(case)
    if models is None:
        return f"has no {case.strategy}"
    # The page cache, too: the others should still find the files there.
    needed, available = models * files.num_bytes // case.num_updates + files.num_bytes, available_memory()
    if needed > available:
        return f"would need about {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are free"
    return None


def not_installed(log: Path) -> str:
    """Say what pip wrote down under `make bench`."""
    lines = log.read_text().splitlines() if log.exists() else []
    reason = next((line for line in reversed(lines) if line.startswith("ERROR")), "`make bench` does that")
    return f"not installed: {reason}"


def available_memory() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024


def better(one: Result | None, other: Result) -> Result:
    if one is None or "error" in other:
        return other
    best = min(one, other, key=lambda each: each["seconds"] + each.get("decoding", 0))
    return {**best, "memory": max(one["memory"], other["memory"])}
