"""The server answers as its own description says, whatever it is sent."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from described_world import DescribedWorld
from harness import World

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
SEED = 1
NOT_INSTALLED = "POST /api/inference/"
"""Predicting is not there yet: what else could be wrong is found, and then it is 501."""
CONFIGURATION = """
[generation]
max-examples = 10
[phases.stateful.generation]
max-examples = 60
"""


@pytest.mark.timeout(600)
def test_schemathesis_finds_no_answer_that_is_not_as_described(world: World, tmp_path: Path) -> None:
    world.server.start()
    described = DescribedWorld(world)
    (tmp_path / "requests.json").write_text(json.dumps(described.requests()))

    ran = _run(world.server.url, described.boss.header, tmp_path)

    assert ran.returncode == 0, ran.stdout
    assert int(re.search(r"(\d+) covered", ran.stdout)[1]) > 0, "no link was followed"
    answers = _answers(tmp_path)
    assert sum(map(len, answers.values())) >= 2000
    assert {label for label, statuses in answers.items() if not {200, 201, 202, 204} & {*statuses}} == {NOT_INSTALLED}
    assert 501 in answers[NOT_INSTALLED]


def _run(url: str, header: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    (authorization,) = header.items()
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/api/schema/"),
        *("--header", ": ".join(authorization), "--seed", str(SEED), "--generation-database", "none"),
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
        *("--continue-on-failure", "--no-shrink", "--warnings", "off"),
    ]
    environment = {"SCHEMATHESIS_HOOKS": str(HOOKS), "FOLKMOOT_DESCRIBED_WORLD": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _answers(folder: Path) -> dict[str, list[int]]:
    answers: dict[str, list[int]] = defaultdict(list)
    for line in (folder / "answers.jsonl").read_text().splitlines():
        label, status = json.loads(line)
        answers[label].append(status)
    return answers
