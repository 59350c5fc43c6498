"""What the figures were measured on, and when."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path


def machine() -> str:
    """One line: the date, the processor, how many of them are ours, the kernel, and how busy they were before."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    processors = len(os.sched_getaffinity(0))
    return (
        f"{now}; {processors} x {_model()}, {_mhz()}; Linux {platform.release()}; load {os.getloadavg()[0]:.1f} before"
    )


def _model() -> str:
    return _cpuinfo("model name") or platform.machine()


def _mhz() -> str:
    found = _cpuinfo("cpu MHz")
    return f"{float(found):.0f} MHz" if found else "frequency unknown"


def _cpuinfo(key: str) -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
