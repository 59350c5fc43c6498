"""The demo's small network."""

import numpy as np
import pytest

from folkmoot.demo import network
from folkmoot.demo.digits import load_digits
from folkmoot.demo.examples import Examples


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def rng():
    return np.random.default_rng(0)


def test_it_learns_the_digits(digits):
    weights = network.initial_weights()
    first_loss, first_accuracy = network.evaluate(weights, digits)

    network.train(weights, digits, network.Recipe(epochs=5), rng())

    loss, accuracy = network.evaluate(weights, digits)
    assert first_accuracy < 0.3
    assert accuracy > 0.95
    assert loss < first_loss


def test_training_returns_the_mean_loss_of_the_last_epoch(digits):
    weights = network.initial_weights()
    standing_still = network.Recipe(epochs=2, learning_rate=0.0, batch_size=len(digits))

    returned = network.train(weights, digits, standing_still, rng())

    assert returned == pytest.approx(network.evaluate(weights, digits)[0], rel=1e-5)


def test_a_step_follows_the_slope_of_the_loss():
    """Against the slope that is measured by moving one weight at a time a little."""
    some = Examples(rng().random((4, 64)).astype(np.float32), np.array([0, 3, 3, 9]))
    weights = network.initial_weights()
    moved = {name: weight.copy() for name, weight in weights.items()}
    network.train(moved, some, network.Recipe(epochs=1, learning_rate=1.0, momentum=0.0, batch_size=4), rng())

    for name, weight in weights.items():
        place = np.unravel_index(np.abs(moved[name] - weight).argmax(), weight.shape)
        assert (weight - moved[name])[place] == pytest.approx(slope(weights, name, place, some), rel=0.02)


def slope(weights, name, place, examples, step=1e-3):
    def loss(shift):
        shifted = {key: weight.astype(np.float64) for key, weight in weights.items()}
        shifted[name][place] += shift
        return network.evaluate(shifted, examples)[0]

    return (loss(step) - loss(-step)) / (2 * step)


def test_the_same_seed_gives_the_same_bits(digits):
    first, again = network.initial_weights(), network.initial_weights()
    for weights in (first, again):
        network.train(weights, digits, network.Recipe(epochs=1), rng())

    for name in first:
        np.testing.assert_array_equal(first[name], again[name])


def test_examples_survive_their_file(digits, tmp_path):
    digits.save(tmp_path / "share.npz")

    loaded = Examples.load(tmp_path / "share.npz")

    np.testing.assert_array_equal(loaded.images, digits.images)
    np.testing.assert_array_equal(loaded.labels, digits.labels)
