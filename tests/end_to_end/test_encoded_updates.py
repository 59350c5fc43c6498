"""Participants of a real hub whose updates arrive in fewer bytes, and what comes of them."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
from harness import Participants, as_file, num_examples, trained
from invariants import read

SHAPES = {"weight": (300, 200), "bias": (200,)}
MODEL_BYTES = 4 * (300 * 200 + 200)
HEADER_BYTES = 700


@pytest.fixture
def large(world):
    """A hub of its own, as participants do whatever is to be done; its model is so large that headers do not matter."""
    world.server.start()
    noise = np.random.default_rng(2)
    file = as_file({name: np.float32(noise.normal(size=shape)) for name, shape in SHAPES.items()})
    form = {"name": "large", "description": "for tests"}
    answer = world.call(world.actor, "POST", "/api/models/", data=form, files={"model_file": ("m.safetensors", file)})
    assert answer.status_code == 201, answer.text
    return replace(world, model_id=answer.json()["model_id"])


def arrived(hub, training):
    """How many bytes each update had on the wire, and that none came plain."""
    query = "SELECT format, received_bytes FROM trainings_update u JOIN trainings_round r ON u.round_id = r.id"
    rows = read(hub.place, f"{query} WHERE r.training_id = '{UUID(training).hex}'")
    assert {row["format"] for row in rows} == {"encoded"}
    return [row["received_bytes"] for row in rows]


def averaged(weights, accounts, number):
    """What the hub makes of updates that come as they are."""
    updates = [(trained(weights, each.name, number), num_examples(each.name)) for each in accounts]
    total = sum(count for _, count in updates)
    return {name: sum(update[name].astype("f8") * count for update, count in updates) / total for name in weights}


@pytest.mark.parametrize(
    ("encoding", "share", "tolerance"),
    [
        ({"values": "float16"}, 0.5, 2**-11),
        ({"values": "bfloat16", "difference": True}, 0.5, 2**-8),
        ({"values": "int8", "difference": True, "zstd": 3}, 0.26, 1 / 254),
    ],
    ids=str,
)
def test_updates_arrive_smaller_and_the_result_is_within_the_bound(large, encoding, share, tolerance):
    accounts = large.participants(2)
    with Participants(large, accounts):
        training = large.started(accounts, rounds=2, encoding=encoding, tests="never")
        large.wait_for_end(training)

    assert len(arrived(large, training)) == 4
    assert max(arrived(large, training)) <= share * MODEL_BYTES + HEADER_BYTES
    for number in range(2):
        before, after = large.weights(training, number)[0], large.weights(training, number + 1)[0]
        exactly = averaged(before, accounts, number)
        for name in SHAPES:
            largest = max(np.abs(exactly[name]).max(), np.abs(exactly[name] - before[name]).max()) * 2
            np.testing.assert_allclose(after[name], exactly[name], atol=tolerance * largest)


def test_a_tenth_of_the_difference_is_sent_and_the_rest_comes_later(large):
    accounts = large.participants(2)
    with Participants(large, accounts):
        training = large.started(accounts, rounds=3, encoding={"top_k": 0.1, "values": "float16"}, tests="never")
        large.wait_for_end(training)

    before, after = large.weights(training, 0)[0], large.weights(training, 1)[0]
    changed = np.mean(before["weight"] != after["weight"])
    assert 0.1 <= changed <= 0.2
    assert max(arrived(large, training)) <= 0.1 * MODEL_BYTES + HEADER_BYTES
