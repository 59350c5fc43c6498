"""The programs of the tutorial, as they stand there, against a real hub."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

PAGE = (Path(__file__).parent.parent / "docs/tutorial.md").read_text()
PROGRAMS = {name: text for text, name in re.findall(r"```python\n(# (\w+\.py)\n.*?)```", PAGE, re.DOTALL)}
FOLKMOOT = str(Path(sys.executable).with_name("folkmoot"))
# Nothing of the machine's own settings; the programs' output comes line by line.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
ENVIRONMENT["PYTHONUNBUFFERED"] = "1"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A hub that listens on this machine, as the environment that its operator sets."""
    environment = ENVIRONMENT | {"FOLKMOOT_DATA_DIR": str(tmp_path / "hub"), "FOLKMOOT_REGISTRATION": "closed"}
    serve = [FOLKMOOT, "serve", "--port", "0"]
    with running(serve, environment, tmp_path) as server:
        address = re.search(r"https?://\S+", server.stdout.readline())
        assert address is not None
        yield environment | {"FOLKMOOT_URL": address[0]}


@contextmanager
def running(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def add_user(hub: dict[str, str], *arguments: str) -> dict[str, str]:
    """Make a user and return the environment that this user sets."""
    added = subprocess.run([FOLKMOOT, "user", "add", *arguments], env=hub, check=True, capture_output=True, text=True)
    return ENVIRONMENT | {"FOLKMOOT_URL": hub["FOLKMOOT_URL"], "FOLKMOOT_TOKEN": added.stdout.strip()}


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", PROGRAMS[program], *arguments]


def clinic(folder: Path, number: int) -> Path:
    folder.mkdir()
    subprocess.run(python("sample_data.py", str(number)), cwd=folder, check=True)
    return folder


def ids_of_clinics(alice: dict[str, str]) -> list[str]:
    headers = {"Authorization": f"Token {alice['FOLKMOOT_TOKEN']}"}
    users = httpx2.get(f"{alice['FOLKMOOT_URL']}/api/users/", headers=headers, trust_env=False).json()
    return [user["id"] for user in users if user["username"].endswith("-clinic")]


def test_the_tutorials_programs_train_a_model_that_predicts(hub: dict[str, str], tmp_path: Path) -> None:
    alice, north, south = (add_user(hub, *who) for who in (("alice", "--actor"), ("north-clinic",), ("south-clinic",)))
    with (
        running(python("participant.py"), north, clinic(tmp_path / "north", 1)),
        running(python("participant.py"), south, clinic(tmp_path / "south", 2)),
    ):
        start = python("start.py", *ids_of_clinics(alice))
        said = subprocess.run(start, env=alice, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "state: C" in said
    last = re.search(r"round 9, accuracy: (\S+) (\S+)", said)
    assert last is not None
    assert min(map(float, last.groups())) > 0.8
