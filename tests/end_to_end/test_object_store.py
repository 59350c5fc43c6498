"""A hub whose files are in an S3-compatible store trains as one with a folder does, also while the store fails."""

from __future__ import annotations

import time

import numpy as np
import pytest
from buckets import files_in, storage_settings
from harness import Participants, World, as_file, wait_until

from object_store import BrokenLine, after, fails, object_store, refuses_writes, whole

ROUNDS = 3


@pytest.fixture(scope="module")
def store():
    with object_store() as store:
        yield store


@pytest.fixture
def bucket(store):
    return store.new_bucket()


@pytest.fixture
def line(store):
    with BrokenLine(store) as line:
        yield line


@pytest.fixture
def settings(bucket, line):
    return storage_settings(bucket.url(endpoint=line.endpoint), FOLKMOOT_STORAGE_TIMEOUT="1")


@pytest.fixture
def world(world: World, bucket):
    with files_in(bucket, world.place):
        yield world


def test_a_training_ends_with_the_same_bytes_as_with_a_folder(world, undisturbed):
    world.server.start()
    accounts = world.participants(2)
    with Participants(world, accounts):
        training_id = world.started(accounts, rounds=ROUNDS)
        world.wait_for_end(training_id)

    assert world.weights(training_id)[1] == undisturbed(2, ROUNDS)


def test_a_store_that_fails_for_a_while_costs_time_and_nothing_else(world, line, undisturbed):
    world.server.start()
    accounts = world.participants(2)
    training_id = world.create_training(accounts, rounds=ROUNDS)
    world.start(training_id)
    line.fault = fails
    with Participants(world, accounts):
        seen = len(line.seen)
        wait_until(lambda: len(line.seen) > seen + 8, "the hub to have asked in vain")
        assert world.round_state(training_id, 0) == "OPEN"
        line.fault = whole
        world.wait_for_end(training_id)

    assert world.weights(training_id)[1] == undisturbed(2, ROUNDS)


@pytest.mark.parametrize("seconds", [2, pytest.param(10, marks=pytest.mark.soak)])
def test_updates_and_then_the_next_model_are_not_taken_for_a_while(world, line, undisturbed, seconds):
    world.server.start()
    accounts = world.participants(2)
    training_id = world.started(accounts, rounds=ROUNDS)
    world.wait_for_round(training_id, 0)
    update = world.update_of(accounts[0], training_id, 0)

    line.fault = refuses_writes
    refused = world.send(update)
    with Participants(world, accounts) as participants:
        time.sleep(seconds)  # that is how long nothing is taken
        assert world.training(training_id)["rounds"][0]["arrived"] == []
        line.fault = after(len(accounts), refuses_writes)
        wait_until(lambda: world.training(training_id)["reason"], "the round to wait for the store")
        assert world.round_state(training_id, 0) == "AGGREGATING"
        line.fault = whole
        world.wait_for_end(training_id)

    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert participants.trained == {account.name: list(range(ROUNDS)) for account in accounts}
    assert world.weights(training_id)[1] == undisturbed(2, ROUNDS)


def test_the_hub_says_that_it_is_not_ready_and_503_while_the_store_fails(world, line):
    world.server.start()
    line.fault = fails

    ready = world.call(None, "GET", "/readyz")
    upload = world.call(
        world.actor,
        "POST",
        "/api/models/",
        data={"name": "n", "description": "d"},
        files={"model_file": ("m", as_file({"w": np.zeros(3, "f4")}))},
    )

    assert (ready.status_code, ready.json()["checks"]) == (503, {"database": True, "storage": False})
    assert (upload.status_code, upload.headers["Retry-After"]) == (503, "2")
    assert upload.json()["code"] == "unavailable"
    assert len(world.call(world.actor, "GET", "/api/models/").json()) == 1
    line.fault = whole
    assert world.call(None, "GET", "/readyz").status_code == 200
