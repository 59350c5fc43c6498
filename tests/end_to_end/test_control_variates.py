"""Participants whose data differ drift apart in many local steps; with SCAFFOLD they reach the optimum all the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import as_file, at_work

STEPS, LEARNING_RATE, ROUNDS = 20, 0.05, 10
CURVATURES = (np.array([1.0, 4.0]), np.array([4.0, 1.0]))
MINIMA = (np.array([0.0, 0.0]), np.array([5.0, 5.0]))
OPTIMUM = sum(a * b for a, b in zip(CURVATURES, MINIMA, strict=True)) / sum(CURVATURES)
"""Of the sum of both participants' losses, each a * (x - b)^2 / 2 in either coordinate."""


class Drifting:
    """Descends its own loss for many steps; corrected by control variates where the training has these."""

    def __init__(self, curvature, minimum, *, is_corrected):
        self.curvature, self.minimum, self.is_corrected = curvature, minimum, is_corrected
        self.own = np.zeros(2)
        self.seen = []

    def train(self, weights, task):
        start = weights["x"].astype("f8")
        server = task.state("control_variate", like=weights)["x"].astype("f8") if self.is_corrected else np.zeros(2)
        self.seen.append(server)
        x = start
        for _ in range(STEPS):
            x = x - LEARNING_RATE * (self.curvature * (x - self.minimum) - self.own + server)
        if not self.is_corrected:
            return {"x": x}, 10, {}
        # Option II of Karimireddy et al. 2020, Algorithm 1.
        change = (start - x) / (STEPS * LEARNING_RATE) - server
        self.own = self.own + change
        return {"x": x, "control_variate/x": change}, 10, {}


@pytest.fixture
def quadratic(world):
    # In a world of its own: the participants do whatever is to be done.
    world.server.start()
    form = {"name": "quadratic", "description": "for tests"}
    file = as_file({"x": np.zeros(2, "f4")})
    answer = world.call(world.actor, "POST", "/api/models/", data=form, files={"model_file": ("m.safetensors", file)})
    assert answer.status_code == 201, answer.text
    return replace(world, model_id=answer.json()["model_id"])


@pytest.fixture
def train(quadratic):
    """A function: what a training with this method ends with, and its participants."""

    def run(method):
        accounts = quadratic.participants(2)
        is_corrected = method == "SCAFFOLD"
        programs = [Drifting(a, b, is_corrected=is_corrected) for a, b in zip(CURVATURES, MINIMA, strict=True)]
        with at_work(quadratic, accounts, programs):
            training = quadratic.started(accounts, rounds=ROUNDS, aggregation_method=method, tests="never")
            quadratic.wait_for_end(training)
        return quadratic.weights(training)[0]["x"], programs

    return run


def test_many_local_steps_of_fedavg_end_elsewhere(train):
    reached, _ = train("FedAvg")

    assert np.abs(reached - OPTIMUM).max() > 0.3


def test_scaffold_reaches_the_optimum(train):
    reached, programs = train("SCAFFOLD")

    np.testing.assert_allclose(reached, OPTIMUM, atol=0.02)
    for program in programs:
        assert program.seen[0].tolist() == [0, 0]
        assert np.abs(program.seen[1]).max() > 0
