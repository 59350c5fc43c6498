"""A time of day that jumps, for the processes that are started with it and for no others."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

NO_COMPILER = "no C compiler: apt-get install gcc"


class WallClock:
    """Moves the time of day of every process that has its `environment` from the start; needs a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._seconds = folder / "seconds"
        self.environment = {"LD_PRELOAD": str(_library(folder)), "TEST_CLOCK": str(self._seconds)}

    def jump_to(self, seconds: int) -> None:
        """Be so many seconds ahead of the machine's own from now on."""
        written = self._seconds.with_suffix(".new")
        written.write_text(str(seconds))
        written.replace(self._seconds)


def _library(folder: Path) -> Path:
    if shutil.which("cc") is None:
        if os.environ.get("CI") == "true":
            pytest.fail(NO_COMPILER)
        pytest.skip(NO_COMPILER)
    library = folder / "wall_clock.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library
