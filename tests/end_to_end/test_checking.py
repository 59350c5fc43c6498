"""`folkmoot check` on a hub of several processes: what it says of their broker, and of the machine's clock."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from harness import Place, Production

import warm
from wall_clock import WallClock

Findings = dict[str, dict[str, Any]]
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from folkmoot.cli import main; main()"


@pytest.fixture
def place(idle_production: Production) -> Place:
    return idle_production.place


@pytest.fixture
def check(place: Place) -> Callable[..., Findings]:
    """The findings by name, in an environment that `settings` change; without torch, which takes long to import."""
    command = ["check", "--json", "--data-dir", str(place.data_dir)]

    def run(**settings: str) -> Findings:
        environment = place.environment(**settings)
        if "LD_PRELOAD" not in settings:
            run = warm.run(command, env=environment, folder=place.folder, without=["torch"])
        else:
            cold = [sys.executable, "-c", WITHOUT_TORCH, *command]
            run = subprocess.run(cold, env=environment, capture_output=True, text=True, check=False, timeout=60)
        return {each["name"]: each for each in json.loads(run.stdout)["findings"]}

    return run


@pytest.mark.parametrize("broker_kind", ["redis", "rabbitmq"])
def test_a_broker_that_answers_and_a_clock_that_is_right_are_fine(check: Callable[..., Findings]) -> None:
    found = check()

    assert (found["broker"]["status"], found["clock"]["status"]) == ("ok", "ok")
    assert found["broker"]["detail"].endswith(" answers")
    assert found["clock"]["detail"].endswith(" the database's")


@pytest.mark.parametrize("url", ["redis://:canary@127.0.0.1:1/0", "amqp://ann:canary@127.0.0.1:1//"])
def test_a_broker_that_does_not_answer_is_wrong_and_its_password_stays_unsaid(
    check: Callable[..., Findings], url: str
) -> None:
    broker = check(FOLKMOOT_BROKER_URL=url)["broker"]

    assert (broker["status"], broker["remedy"]) == ("wrong", "see FOLKMOOT_BROKER_URL")
    assert "127.0.0.1:1/" in broker["detail"]
    assert " does not answer (" in broker["detail"]
    assert "canary" not in broker["detail"]


@pytest.mark.parametrize(("seconds", "side"), [(3600, "ahead of"), (-3600, "behind")])
def test_a_clock_that_is_off_is_a_warning(
    check: Callable[..., Findings], tmp_path_factory: pytest.TempPathFactory, seconds: int, side: str
) -> None:
    wall_clock = WallClock(tmp_path_factory.mktemp("clock"))
    wall_clock.jump_to(seconds)

    clock = check(**wall_clock.environment)["clock"]

    assert clock["status"] == "warning"
    words = clock["detail"].split(maxsplit=2)
    assert abs(float(words[0]) - 3600) < 5
    assert words[2] == f"{side} the database's"
    assert "NTP" in clock["remedy"]
