"""The benchmarks are programs, and nobody wants to find out on the day of measuring that they no longer run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_case_tells_where_the_files_are_and_how_each_contender_did(tmp_path: Path) -> None:
    told = measured(tmp_path, "--strategy=FedAvg", "--size=3,1000")
    assert re.search(r"^FedAvg: 3 x 1,000 parameters, 0 MB; files on \w+", told, re.MULTILINE)
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC; \d+ x .*; load \d+\.\d before$", told.splitlines()[0]), told
    for contender in ("reading, 1 thread", "reading, 2 threads", "writing the result", "Folkmoot", "Folkmoot, scores"):
        assert re.search(rf"^{contender} +\d+\.\d+ ", told, re.MULTILINE), told
    assert re.search(r"^NVFlare +(\d+\.\d+ |not installed: )", told, re.MULTILINE), told
    assert re.search(r"^  (met|MISSED): \d+ MB of memory, at most 64 MB$", told, re.MULTILINE), told
    assert "another model" not in told


def test_flower_takes_its_turn_and_the_target_beside_it_is_judged(tmp_path: Path) -> None:
    if not (ROOT / "build/bench/flower/installed").exists():
        pytest.skip("Flower is not installed: `make bench` does that")
    told = measured(tmp_path, "--strategy=Median", "--size=3,1000")
    for row in ("Flower", r"Flower \+ decoding"):
        assert re.search(rf"^{row} +\d+\.\d+ ", told, re.MULTILINE), told
    assert re.search(
        r"^  (met|MISSED): \d+\.\d x Flower \(\d+\.\d x with decoding\), at least 10 x$", told, re.MULTILINE
    ), told
    assert "another model" not in told


def test_a_contender_that_fails_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    told = measured(tmp_path, "--strategy=Krum", "--size=1,1000")
    assert re.search(r"^Folkmoot +folkmoot\.errors\.\w+: ", told, re.MULTILINE), told
    assert re.search(r"^reading, 2 threads +\d+\.\d+ ", told, re.MULTILINE), told
    assert re.search(r"^NVFlare +(has no Krum|not installed: )", told, re.MULTILINE), told


def measured(folder: Path, *options: str) -> str:
    return run("benchmarks/aggregation.py", "--repeats=1", f"--folder={folder}", *options)


def test_predictions_are_measured_at_the_api_of_a_hub() -> None:
    told = run("benchmarks/inference.py", "--repeats=1")
    for measured in (
        "the first question",
        "1 row",
        "1,000 rows",
        "32 rows, module",
        "32 rows, TorchScript, 100 samples",
    ):
        assert re.search(rf"^{measured} +[\d,]+\.\d ms", told, re.MULTILINE), told
    assert re.search(r"^  in questions per 10 samples +\d+\.\d\d ", told, re.MULTILINE), told


def test_a_round_is_measured_with_a_hub_and_a_participant_of_their_own() -> None:
    told = run("benchmarks/rounds.py", "--case=1,1,1")
    assert re.search(r"^1 MB, 1 participants: a round +\d+\.\d+ s$", told, re.MULTILINE), told
    assert re.search(r"^  bytes of bodies in a round +2 MB$", told, re.MULTILINE), told
    assert re.search(r"^  most memory \(RssAnon\) of the hub +\d+ MB +target: under 250, met$", told, re.MULTILINE), (
        told
    )


def test_pollers_are_answered_and_those_beyond_the_limit_are_told_to_come_again() -> None:
    told = run("benchmarks/pollers.py", "--quick", "--pollers=50", "--every=1")
    assert re.search(r"^50 pollers, each every 1 s: polls a second +50\.00$", told, re.MULTILINE), told
    assert re.search(r"^  answered otherwise than by 304 +0\.00 +target: under 1, met$", told, re.MULTILINE), told
    assert re.search(r"^an update of 1 MB, with nobody polling +\d+\.\d+ s$", told, re.MULTILINE), told
    assert re.search(r"^of 100 beyond 50 that are held, told 429 +100\.00 .*, met$", told, re.MULTILINE), told


def test_updates_that_come_at_once_are_all_in_the_round() -> None:
    told = run("benchmarks/uploads.py", "--case=20,1")
    assert re.search(r"^20 updates of 1 MB at once +\d+\.\d+ s$", told, re.MULTILINE), told
    assert re.search(r"^  accepted +20\.00 +target: at least 20, met$", told, re.MULTILINE), told
    assert re.search(r"^  updates in the round's model +20\.00 +target: at least 20, met$", told, re.MULTILINE), told


def run(*command: str) -> str:
    return subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True, text=True).stdout
