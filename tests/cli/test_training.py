"""`folkmoot training` follows and steers trainings on a real hub."""

from __future__ import annotations

import json

import numpy as np
import pytest

from folkmoot.client import Hub
from folkmoot.tensors import write_tensors


@pytest.fixture
def hub(hub_on, data):
    url = hub_on(data)
    with Hub(url) as nobody:
        user = nobody.register("ada", "correct horse battery staple", actor=True)
    with Hub(url, user["token"]) as hub:
        hub.environment = {"FOLKMOOT_URL": url, "FOLKMOOT_TOKEN": user["token"]}
        hub.user = user["id"]
        yield hub


@pytest.fixture
def training(hub, tmp_path):
    """Of a training that has not started, with its actor as the one participant."""
    write_tensors(tmp_path / "model.safetensors", {"w": np.zeros(2, "f4")})
    model = hub.upload_model("m", "d", tmp_path / "model.safetensors")
    return hub.create_training(model, 3, clients=[hub.user], options={"tests": "never"})


def test_a_training_is_steered_from_a_shell(folkmoot, hub, training):
    def run(*arguments, code=0):
        done = folkmoot("training", *arguments, **hub.environment)
        assert done.returncode == code, done.stderr
        return done.stdout

    assert run("explain", training) == "Not started: 1 participant so far, 3 rounds to go.\n"
    assert run("start", training) == "started\n"
    assert run("pause", training) == "paused\n"
    assert run("show", training).startswith("state   paused\nround   1 (open), attempt 1\nupdates 0 of 1\n")
    assert run("resume", training) == "resumed\n"
    assert run("wait", training, "--timeout", "0", "--json", code=4).startswith("{")
    assert run("stop", training) == "stopped\n"
    assert "reason  Stopped on request. (stopped)" in run("wait", training, code=3)
    assert "updates" not in run("show", training)
    sentences = [each["sentence"] for each in json.loads(run("events", training, "--json"))]
    assert sentences[:2] == ["Created by ada.", "Started by ada."]
    clone = run("clone", training, "--round", "0").strip()
    assert f"{clone}  initial     FedAvg" in run("list")


def test_what_the_hub_refuses_is_said_in_one_line(folkmoot, hub, training):
    done = folkmoot("training", "retry", training, **hub.environment)

    assert done.returncode == 1
    assert f"Training {training} is not in state ERROR!" in done.stderr
    assert "Traceback" not in done.stderr


def test_programs_steer_a_training_too(hub, training):
    hub.start(training)
    hub.pause(training)
    hub.resume(training)
    hub.stop(training, at_end_of_round=True)
    assert hub.training(training)["stops_after_round"] is True
    hub.stop(training)
    again = hub.clone(training, round=0, name="again", options={"round_timeout": 60}, target_num_updates=1)

    assert hub.training(again)["options"] == {"round_timeout": 60}
    assert [each["id"] for each in hub.trainings()] in ([training, again], [again, training])
    newest = hub.events(training)[-1]
    assert (newest["kind"], hub.events(training, after=newest["id"])) == ("training_cloned", [])
