"""What a request costs the server, and what it leaves behind."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx2
from harness import Place

_RESET_PEAK = "5"
_TABLES = ("registry_model", "registry_checkpoint", "trainings_update", "uploads_upload")


class Cost(NamedTuple):
    """Of the process in seconds of processor time, and in bytes of memory at the most over what it had."""

    seconds: float
    num_bytes: int


def cost_of(pid: int, request: Callable[[], httpx2.Response]) -> tuple[httpx2.Response, Cost]:
    """Make the request and tell what it cost the process; nothing else may ask it for work meanwhile."""
    Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)
    before, started = _memory(pid, "VmRSS"), _processor_seconds(pid)
    answer = request()
    return answer, Cost(_processor_seconds(pid) - started, _memory(pid, "VmHWM") - before)


def _memory(pid: int, name: str) -> int:
    (kilobytes,) = re.findall(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024


def _processor_seconds(pid: int) -> float:
    # Not the clock on the wall: the machine may have more to do.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stored(place: Place) -> dict[str, object]:
    """Every blob and the number of rows in each table that files are noted in."""
    with closing(sqlite3.connect(f"file:{place.sqlite}?mode=ro", uri=True)) as database:
        known = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        rows = {
            table: database.execute(f"SELECT count(*) FROM {table}").fetchone()
            for table in sorted(known.intersection(_TABLES))
        }
    return {"blobs": sorted(path.name for path in place.blobs.glob("??/*")), "incoming": place.incoming(), **rows}


def settled(place: Place) -> dict[str, object]:
    """As `stored`, once the files on their way in are gone: the answer is sent before they are."""
    deadline = time.monotonic() + 5
    while place.incoming() and time.monotonic() < deadline:
        time.sleep(0.01)
    return stored(place)
