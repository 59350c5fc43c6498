"""Three participants count how well the model of the digits does on data of their own; the hub makes it honest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import as_file, at_work
from sklearn.datasets import load_digits

from folkmoot.client import Hub
from folkmoot.uncertainty import ClassStatistics, expected_calibration_error, prediction_set, temperature_scaled
from folkmoot.uncertainty import probabilities as probabilities_of

ROUNDS, STEPS, LEARNING_RATE = 2, 300, 30.0


def logits_of(weights, images):
    return images @ weights["w"] + weights["b"]


class Hospital:
    """Trains a softmax regression on few images for long, which makes it too sure of itself, and counts on others."""

    def __init__(self, images, labels):
        self.train_on, self.count_on = ((images[part], labels[part]) for part in (slice(0, 30), slice(30, None)))
        self.counted = 0

    def train(self, weights, task):
        images, labels = self.train_on
        for _ in range(STEPS):
            errors = probabilities_of(logits_of(weights, images)) - np.eye(10)[labels]
            weights["w"] -= LEARNING_RATE * images.T @ errors / len(images)
            weights["b"] -= LEARNING_RATE * errors.mean(axis=0)
        return weights, len(images), {}

    def evaluate(self, weights, task):
        images, labels = self.count_on
        logits = logits_of(weights, images)
        self.counted += len(images)
        accuracy = (logits.argmax(axis=1) == labels).mean()
        return len(images), {"accuracy": float(accuracy)}, ClassStatistics.of(logits, labels)


@pytest.fixture
def digits():
    """Of each of three hospitals its images and labels, and some that nobody has seen."""
    images, labels = load_digits(return_X_y=True)
    shuffled = np.random.default_rng(0).permutation(len(labels))
    *own, held_out = (((images / 16).astype("f4")[part], labels[part]) for part in np.split(shuffled, [400, 800, 1200]))
    return own, held_out


@pytest.fixture
def regression(world):
    """In a world of its own: participants of a shared one may be asked to train other models, too."""
    world.server.start()
    form = {"name": "digits", "description": "softmax regression"}
    file = as_file({"w": np.zeros((64, 10), "f4"), "b": np.zeros(10, "f4")})
    answer = world.call(world.actor, "POST", "/api/models/", data=form, files={"model_file": ("m.safetensors", file)})
    assert answer.status_code == 201, answer.text
    return replace(world, model_id=answer.json()["model_id"])


def test_what_participants_count_calibrates_the_model_for_data_that_nobody_has_counted(regression, digits):
    own, (images, labels) = digits
    hospitals = [Hospital(*part) for part in own]
    accounts = regression.participants(3)
    with at_work(regression, accounts, hospitals):
        training = regression.started(accounts, rounds=ROUNDS)
        regression.wait_for_end(training, seconds=60)

    with Hub(regression.server.url, accounts[0].token) as hub:
        found = [hub.calibration(regression.model_id, number, coverage=0.9) for number in (1, ROUNDS)]
        assert hub.calibration(regression.model_id, coverage=0.9) == found[-1]

    for each in found:
        assert (each["participants"], each["examples"]) == (3, 3 * 370)
        assert each["scaled_calibration_error"] < each["expected_calibration_error"] / 2
    assert [hospital.counted for hospital in hospitals] == [ROUNDS * 370] * 3

    logits = logits_of(regression.weights(training)[0], images)
    scaled = temperature_scaled(logits, found[-1]["temperature"])
    before, after = (
        expected_calibration_error(ClassStatistics.of(each, labels)) for each in (probabilities_of(logits), scaled)
    )
    assert before == pytest.approx(found[-1]["expected_calibration_error"], abs=0.03)
    assert after < before / 2

    sets = prediction_set(probabilities_of(logits), found[-1]["conformal"]["threshold"])
    assert 0.87 < sets[np.arange(len(labels)), labels].mean() < 0.94
