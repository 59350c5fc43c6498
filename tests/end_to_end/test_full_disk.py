"""A disk that is full for a while in the middle of a round: who sends is told to come again, and nothing is lost."""

from __future__ import annotations

import resource
import time

import numpy as np
import pytest
from harness import Participants, as_file, wait_until

VALUES = 2_000_000
"""Of float32: files that are larger than the database and its log, which must not meet the limit."""
ROUNDS = 2
OPTIONS = {"aggregation_method": "FedAdam", "tests": "never"}
"""Both moments of Adam are in one file: twice as large as the checkpoint."""


def leave_space_for(server, values):
    """On the disk, for a file; a limit on the size of files stands for one that is full."""
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (4 * values, resource.RLIM_INFINITY))


@pytest.fixture
def large_model(world):
    world.server.start()
    file = as_file({"w": np.zeros(VALUES, "f4")})
    form = {"name": "large", "description": "larger than the database"}
    answer = world.call(world.actor, "POST", "/api/models/", data=form, files={"model_file": ("m", file)})
    return answer.json()["model_id"]


@pytest.mark.parametrize("seconds", [2, pytest.param(10, marks=pytest.mark.soak)])
def test_updates_and_then_the_next_model_find_no_space_for_a_while(world, large_model, seconds):
    accounts = world.participants(2)
    disturbed, undisturbed = (
        world.create_training(accounts, rounds=ROUNDS, model_id=large_model, **OPTIONS) for _ in range(2)
    )
    world.start(disturbed)
    world.wait_for_round(disturbed, 0)
    update = world.update_of(accounts[0], disturbed, 0)

    leave_space_for(world.server, VALUES * 3 // 4)
    refused = world.send(update)
    with Participants(world, accounts) as participants:
        time.sleep(seconds)  # that is how long there is no space
        assert world.training(disturbed)["rounds"][0]["arrived"] == []
        leave_space_for(world.server, VALUES * 3 // 2)
        wait_until(lambda: world.training(disturbed)["reason"], "the round to wait for space")
        waiting = world.training(disturbed)
        leave_space_for(world.server, VALUES * 3)
        world.wait_for_end(disturbed)
        world.start(undisturbed)
        world.wait_for_end(undisturbed)

    assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
    assert int(refused.headers["Retry-After"]) > 0
    assert (waiting["state"], waiting["rounds"][0]["state"]) == ("O", "AGGREGATING")
    assert waiting["reason"] == "no space left to write checkpoint 1"
    assert participants.trained == {account.name: [0, 1, 0, 1] for account in accounts}
    assert world.weights(disturbed)[1] == world.weights(undisturbed)[1]
