"""What holds for every strategy that is installed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folkmoot.aggregation import strategies
from folkmoot.tensors.schema import BFLOAT16, is_float

NAMES = sorted(strategies())
WITH_STATE = {"FedAvgM", "FedAdagrad", "FedAdam", "FedYogi"}
NOT_THE_UPDATE = {
    # Their step is made of the aggregate's: its sign, and a size of their own.
    "FedAdagrad",
    "FedAdam",
    "FedYogi",
    # Without q it would be; the step is divided by how curved the fairer objective may be.
    "q-FedAvg",
}
"""What gives something else where all updates are equal. FedNova, whose steps are then equal here, does not, nor
FedAvgM in its first round, nor CenteredClipping within its radius."""


def tensors(random: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "single": (random.standard_normal(301) * 10.0 ** random.integers(-5, 5, 301)).astype("f4"),
        "double": random.standard_normal((7, 11)),
        "half": random.standard_normal(33).astype("f2"),
        "brain": random.standard_normal(33).astype(BFLOAT16),
        "n": random.integers(-(2**40), 2**40, 33),
        "bn.running_var": random.uniform(0, 2, 33).astype("f4"),
        "bn.num_batches_tracked": random.integers(0, 2**40, ()),
        "mask": random.random(33) < 0.5,
    }


def near_each_other():
    """A model and an update of it. To take a delta and to add it again has roundings of the larger of the two."""
    model = tensors(np.random.default_rng(2))
    update = tensors(np.random.default_rng(3))
    update["single"] = model["single"] * np.float32(1.5) + np.abs(model["single"]) * np.tanh(update["single"])
    return model, update


def send(a_round, tensors, num_updates=7, seed=0) -> None:
    random = np.random.default_rng(seed)
    for _ in range(num_updates):
        a_round.receive(tensors, int(random.integers(1, 10_000)))


def assert_same(result, expected):
    """To the last bit; but what is float64 is also summed in it, and off by roundings, which the adaptive optimizers
    make larger: they divide by as little as tau."""
    for name, tensor in result.items():
        if tensor.dtype == np.float64:
            np.testing.assert_allclose(tensor, expected[name], rtol=1e-13, atol=1e-14, err_msg=name)
        else:
            np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


@pytest.mark.parametrize("options", [{}, {"clip": 1e-3, "scores": True}], ids=["plain", "clipped"])
@pytest.mark.parametrize("name", NAMES)
def test_updates_that_are_the_model_change_nothing(a_round, for_strategy, strategy_named, name, options):
    for seed in range(3):
        model = tensors(np.random.default_rng(seed))
        strategy = strategy_named(name, **options)
        a_round.begin_with(model)
        send(a_round, model, seed=seed)
        for_strategy(a_round, strategy)

        assert_same(a_round.result(strategy), model)
        a_round.updates, a_round.tensors = [], []


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_THE_UPDATE])
def test_equal_updates_are_what_comes_out(a_round, for_strategy, strategy_named, name):
    model, update = near_each_other()
    strategy = strategy_named(name)
    a_round.begin_with(model)
    send(a_round, update)
    for_strategy(a_round, strategy)

    assert_same(a_round.result(strategy), update)


@pytest.mark.parametrize("name", sorted(NOT_THE_UPDATE))
def test_the_others_go_towards_equal_updates(a_round, for_strategy, strategy_named, name):
    model, update = near_each_other()
    strategy = strategy_named(name)
    a_round.begin_with(model)
    send(a_round, update)
    for_strategy(a_round, strategy)

    result = a_round.result(strategy)

    towards = np.sign(result["double"] - model["double"])
    np.testing.assert_array_equal(towards, np.sign(update["double"] - model["double"]))
    np.testing.assert_array_equal(result["n"], update["n"])


def test_centered_clipping_goes_no_farther_than_its_radius(a_round, strategy_named):
    a_round.begin_with({"w": np.zeros(4)})
    send(a_round, {"w": np.full(4, 5.0)})

    result = a_round.result(strategy_named("CenteredClipping", radius=1.0))["w"]

    assert np.linalg.norm(result) == pytest.approx(1)


floats = st.floats(-1e6, 1e6, width=32)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITH_STATE | {"q-FedAvg"}])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(floats, min_size=3, max_size=3), min_size=7, max_size=12), data=st.data())
def test_the_result_lies_between_the_updates_and_no_order_changes_it(
    a_round, for_strategy, strategy_named, name, rows, data
):
    strategy = strategy_named(name)
    a_round.updates, a_round.tensors = [], []
    a_round.begin_with({"w": np.zeros(3, "f4")})
    for row in rows:
        a_round.receive({"w": np.array(row, "f4")})
    for_strategy(a_round, strategy)

    result = a_round.result(strategy)["w"]
    other = a_round.result(strategy, updates=data.draw(st.permutations(a_round.updates)))["w"]

    slack = 1e-6 * np.abs(rows).max()
    assert (result >= np.min(rows, axis=0) - slack).all()
    assert (result <= np.max(rows, axis=0) + slack).all()
    assert other.tobytes() == result.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_dtypes_and_shapes_stay(a_round, for_strategy, strategy_named, name):
    random = np.random.default_rng(3)
    model = tensors(random)
    strategy = strategy_named(name)
    a_round.begin_with(model)
    for _ in range(7):
        a_round.receive(tensors(random))
    for_strategy(a_round, strategy)

    result = a_round.result(strategy)

    assert {name: (each.dtype, each.shape) for name, each in result.items()} == {
        name: (each.dtype, each.shape) for name, each in model.items()
    }
    assert all(np.isfinite(each.astype("f8")).all() for each in result.values() if is_float(each.dtype))
