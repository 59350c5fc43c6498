"""The benchmarks are programs, and nobody wants to find out on the day of measuring that they no longer run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_case_tells_where_the_files_are_and_how_each_contender_did(tmp_path: Path) -> None:
    told = measured(tmp_path, "--strategy=FedAvg", "--size=3,1000")
    assert re.search(r"^FedAvg: 3 x 1,000 parameters, 0 MB; files on \w+", told, re.MULTILINE)
    for contender in ("reading, 1 thread", "reading, 2 threads", "Folkmoot"):
        assert re.search(rf"^{contender} +\d+\.\d+ ", told, re.MULTILINE), told
    assert re.search(r"^NVFlare +(\d+\.\d+ |not installed: )", told, re.MULTILINE), told
    assert "another model" not in told


def test_a_contender_that_fails_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    told = measured(tmp_path, "--strategy=Krum", "--size=1,1000")
    assert re.search(r"^Folkmoot +folkmoot\.errors\.\w+: ", told, re.MULTILINE), told
    assert re.search(r"^reading, 2 threads +\d+\.\d+ ", told, re.MULTILINE), told
    assert re.search(r"^NVFlare +(has no Krum|not installed: )", told, re.MULTILINE), told


def measured(folder: Path, *options: str) -> str:
    command = [sys.executable, "benchmarks/aggregation.py", "--repeats=1", f"--folder={folder}", *options]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_predictions_are_measured_at_the_api_of_a_hub() -> None:
    command = [sys.executable, "benchmarks/inference.py", "--repeats=1"]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for measured in ("the first question", "1 row", "32 rows", "1,000 rows", "32 rows, 100 samples"):
        assert re.search(rf"^{measured} +\d+\.\d ms$", told, re.MULTILINE), told
    assert re.search(r"^single passes per 10 samples +\d+\.\d\d$", told, re.MULTILINE), told
