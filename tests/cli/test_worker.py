"""`folkmoot worker` and `folkmoot beat` say in one sentence what they miss."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMMAND = (sys.executable, "-c", "from folkmoot.cli import main; main()")
ON_POSTGRES = {"FOLKMOOT_DATABASE_URL": "postgres://postgres@127.0.0.1:1/postgres"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "needs a FOLKMOOT_BROKER_URL, such as redis://host:6379/0; without one folkmoot serve does all"),
        ({"FOLKMOOT_BROKER_URL": "redis://host"}, "FOLKMOOT_BROKER_URL needs a FOLKMOOT_DATABASE_URL"),
        (ON_POSTGRES | {"FOLKMOOT_BROKER_URL": "http://host"}, "FOLKMOOT_BROKER_URL is no URL of a broker"),
    ],
)
def test_what_is_missing_is_said_in_one_line(tmp_path, settings, sentence):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
    command = [*COMMAND, "beat", "--data-dir", str(tmp_path)]

    run = subprocess.run(command, env=environment | settings, capture_output=True, text=True)

    assert run.returncode == 2
    assert run.stderr.startswith("folkmoot: ")
    assert sentence in run.stderr
    assert run.stderr.count("\n") == 1
