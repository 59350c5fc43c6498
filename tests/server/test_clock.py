"""Deadlines do not move when somebody sets the machine's clock: a real process whose time of day really jumps."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from wall_clock import WallClock

PROGRAM = """
import os, sys, time
from pathlib import Path

import django
django.setup()
from folkmoot.server import clock

before, wall_before = clock.now(), time.time()
Path(os.environ["TEST_CLOCK"]).write_text(sys.argv[1])
print(round(time.time() - wall_before), round((clock.now() - before).total_seconds()))
"""


@pytest.mark.parametrize("jump", [3600, -3600])
def test_an_embedded_hub_counts_on_when_the_time_of_day_jumps(tmp_path, jump):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
    environment |= WallClock(tmp_path).environment
    environment |= {"DJANGO_SETTINGS_MODULE": "folkmoot.server.settings", "FOLKMOOT_DATA_DIR": str(tmp_path)}

    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(jump)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    wall_clock_moved, clock_moved = map(int, run.stdout.split())
    assert abs(wall_clock_moved - jump) <= 1
    assert clock_moved <= 1
