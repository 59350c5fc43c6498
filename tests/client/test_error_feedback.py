"""Why what is not sent has to be kept: two participants that disagree drown out what they agree on."""

from __future__ import annotations

import os

import numpy as np
import pytest

from folkmoot.client.error_feedback import ErrorFeedback
from folkmoot.tensors import Schema, TensorFile, write_tensors
from folkmoot.tensors.encodings import Base, Encoding, decode, encode

LEARNING_RATE = 0.05


def gradient(weights, side):
    """Of (w0 - side)^2 + (w1 - 1)^2 / 2: for both sides, 1 and -1, together the best weights are 0 and 1."""
    return np.array([2 * (weights[0] - side), weights[1] - 1])


def federated(tmp_path, options, *, feedback, rounds):
    """Train with one of two numbers sent in each round; return the weights of the last 40."""
    encoding, weights, seen = Encoding.of(options), np.zeros(2), []
    memories = {side: ErrorFeedback(tmp_path / str(side)) for side in (1, -1)}
    for side in memories:
        (tmp_path / str(side)).mkdir(parents=True)
    for _ in range(rounds):
        base, received = Base.of({"w": weights}), []
        for side, memory in memories.items():
            update = {"w": weights - LEARNING_RATE * gradient(weights, side)}
            unsent = memory.unsent("t", Schema.of(update)) if feedback else {}
            encode(update, encoding, tmp_path / "encoded", base=base, unsent=unsent, left=memory.draft)
            memory.taken("t")
            decode(tmp_path / "encoded", tmp_path / "decoded", expected=Schema.of(update), base=base)
            received.append(np.array(TensorFile.open(tmp_path / "decoded")["w"]))
        weights = np.mean(received, axis=0)
        seen.append(weights)
    return np.array(seen[-40:])


@pytest.mark.parametrize("options", [{"top_k": 0.5}, {"top_k": 0.5, "values": "int8"}], ids=str)
def test_top_k_converges_with_what_was_not_sent_and_not_without(tmp_path, options, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # of a thousand files that need to survive nothing
    with_feedback = federated(tmp_path / "with", options, feedback=True, rounds=120)
    without = federated(tmp_path / "without", options, feedback=False, rounds=60)

    np.testing.assert_allclose(with_feedback.mean(axis=0), [0, 1], atol=0.05)
    np.testing.assert_allclose(without.mean(axis=0), [0, 0], atol=0.05)  # w1 was never heard of


def test_each_training_has_its_own(tmp_path):
    memory = ErrorFeedback(tmp_path)
    for training, number in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        write_tensors(memory.draft, {"w": np.array([number])})
        memory.taken(training)
    schema = Schema.of({"w": np.zeros(1)})

    assert [memory.unsent(training, schema)["w"].tolist() for training in "ab"] == [[3], [2]]
    memory.forget("a")
    memory.forget("never heard of")
    assert memory.unsent("a", schema) == {}
    assert len(list(tmp_path.iterdir())) == 1


def test_what_belongs_to_other_tensors_is_not_added(tmp_path):
    memory = ErrorFeedback(tmp_path)
    write_tensors(memory.draft, {"w": np.zeros(1)})
    memory.taken("t")

    assert memory.unsent("t", Schema.of({"w": np.zeros(2)})) == {}
    assert memory.unsent("t", Schema.of({"w": np.zeros(1), "steps": np.array(1)})) != {}
