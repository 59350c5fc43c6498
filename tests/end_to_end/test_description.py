"""The server answers as its own description says, whatever it is sent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from described_world import DescribedWorld
from harness import World

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
Answer = dict[str, Any]
Link = tuple[str, str]
SEED = 1
FOLLOWED_LINKS = 10
"""To what has just been made, and answered well: chance decides which, and some need more than one step before."""
CONFIGURATION = """
[generation]
max-examples = {examples}
[phases.stateful.generation]
max-examples = 60
"""


NEEDS_MORE = {"POST /api/trainings/{id}/retry/", "POST /api/trainings/{id}/progress/"}
"""A training that has failed, or that asks for an update this moment: their own tests make one."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("examples", "least_answers"), [(10, 2000), pytest.param(30, 5000, marks=pytest.mark.soak)])
def test_schemathesis_finds_no_answer_that_is_not_as_described(
    world: World, tmp_path: Path, examples: int, least_answers: int
) -> None:
    world.server.start()
    described = DescribedWorld(world)
    (tmp_path / "requests.json").write_text(json.dumps(described.requests()))

    ran = _run(world.server.url, described.boss.header, tmp_path, examples)

    assert ran.returncode == 0, ran.stdout
    answers = _answers(tmp_path)
    assert len(answers) >= least_answers
    asked, well = ({each["operation"] for each in found} for found in (answers, filter(_is_well, answers)))
    assert asked - well <= NEEDS_MORE
    assert len(_links(described.schema()) & _followed(answers)) >= FOLLOWED_LINKS


def _run(url: str, header: dict[str, str], folder: Path, examples: int) -> subprocess.CompletedProcess[str]:
    (authorization,) = header.items()
    (folder / "schemathesis.toml").write_text(CONFIGURATION.format(examples=examples))
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/api/schema/"),
        *("--header", ": ".join(authorization), "--seed", str(SEED), "--generation-database", "none"),
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
        *("--continue-on-failure", "--no-shrink", "--warnings", "off"),
    ]
    environment = {"SCHEMATHESIS_HOOKS": str(HOOKS), "FOLKMOOT_DESCRIBED_WORLD": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _answers(folder: Path) -> list[Answer]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def _is_well(answer: Answer) -> bool:
    # Other methods are tried as well, OPTIONS among them.
    is_its_own = answer["operation"].startswith(f"{answer['method']} ")
    return is_its_own and answer["status"] in (200, 201, 202, 204)


def _links(schema: dict[str, Any]) -> set[Link]:
    """From an operation that makes something to each that can be done with that, as the description has them."""
    operations = {
        operation["operationId"]: (f"{method.upper()} {path}", operation)
        for path, item in schema["paths"].items()
        for method, operation in item.items()
    }
    return {
        (label, operations[link["operationId"]][0])
        for label, operation in operations.values()
        for link in operation["responses"].get("201", {}).get("links", {}).values()
    }


def _followed(answers: list[Answer]) -> set[Link]:
    """Those whose target has answered well to an id that the source had made."""
    makers = {each["made"]: each["operation"] for each in answers if each["made"]}
    return {(makers[each["id"]], each["operation"]) for each in answers if _is_well(each) and each["id"] in makers}
