"""What happens to tensors that are statistics or counters and no parameters."""

from __future__ import annotations

import numpy as np
import pytest

from folkmoot.aggregation import find_strategy, strategies
from folkmoot.errors import InvalidValue
from folkmoot.tensors import TensorFile


def normalised(mean: float, variance: float, batches: int, weight: float = 0.0) -> dict[str, np.ndarray]:
    """A layer with batch normalisation, as torch names it."""
    return {
        "bn.weight": np.full(3, weight, "f4"),
        "bn.running_mean": np.full(3, mean, "f4"),
        "bn.running_var": np.full(3, variance, "f4"),
        "bn.num_batches_tracked": np.array(batches, "i8"),
    }


def values(tensors) -> dict[str, float]:
    return {name: float(np.ravel(tensor)[0]) for name, tensor in tensors.items()}


@pytest.mark.parametrize("name", ["FedAvg", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi"])
def test_no_server_optimizer_moves_the_statistics(a_round, strategy_named, name):
    a_round.begin_with(normalised(0, 1, 10))
    a_round.receive(normalised(2, 4, 30, weight=1), num_examples=1)
    a_round.receive(normalised(6, 8, 20, weight=1), num_examples=3)

    result = values(a_round.result(strategy_named(name, server_learning_rate=0.25)))

    assert result["bn.running_mean"] == 5
    assert result["bn.running_var"] == 7
    assert result["bn.num_batches_tracked"] == 30
    assert result["bn.weight"] != 1


def test_the_state_has_nothing_of_the_statistics(a_round):
    strategy = find_strategy("FedAdam", {})
    a_round.begin_with(normalised(0, 1, 10))
    a_round.receive(normalised(2, 4, 30, weight=1))
    a_round.aggregate(strategy)

    assert set(TensorFile.open(a_round.folder / "next state")) == {
        "first_moment/bn.weight",
        "adam_second_moment/bn.weight",
    }


STEPS = [{"local_steps": 1, "loss": 0.01}, {"local_steps": 50, "loss": 9.0}, {"local_steps": 2, "loss": 3.0}]


@pytest.mark.parametrize("name", sorted(strategies()))
def test_a_variance_is_never_negative(a_round, for_strategy, strategy_named, name):
    """The deltas of FedNova, q-FedAvg and centered clipping need not sum to a mean: a step could go below zero."""
    strategy = strategy_named(name)
    a_round.begin_with(normalised(0, 1, 10))
    for number in range(7):
        tensors = normalised(0, 1e-6 if number else 2, 10, weight=number)
        a_round.receive(tensors, num_examples=100 ** (number % 2), metrics=STEPS[number % 3])
    for_strategy(a_round, strategy)

    result = a_round.result(strategy)

    assert (result["bn.running_var"] >= 1e-6 * (1 - 1e-6)).all()
    assert (result["bn.running_var"] <= 2).all()


def test_fednova_averages_statistics_by_its_own_weights(a_round):
    a_round.begin_with(normalised(0, 1, 0))
    a_round.receive(normalised(4, 1, 0), metrics={"local_steps": 1})
    a_round.receive(normalised(9, 1, 0), metrics={"local_steps": 4})

    # An update counts by its share over its steps: 1/2 and 1/8.
    assert values(a_round.result(find_strategy("FedNova", {})))["bn.running_mean"] == 5


def test_statistics_of_an_update_that_krum_did_not_choose_do_not_count(a_round):
    a_round.begin_with(normalised(0, 1, 0))
    for weight in (1, 2, 3, 4, 1000):
        a_round.receive(normalised(weight, weight, weight, weight))

    result = values(a_round.result(find_strategy("Krum", {"num_byzantine": 1})))

    assert result == dict.fromkeys(result, result["bn.weight"])


# rules of the user's own


def test_patterns_choose_mean_keep_or_max(a_round):
    rules = {"head.*": "keep", "*.counter": "max", "*.scale": "mean"}
    a_round.begin_with({name: np.zeros(2, "f4") for name in ("head.w", "a.counter", "a.scale", "a.w")})
    for value in (2, 6):
        a_round.receive({name: np.full(2, value, "f4") for name in ("head.w", "a.counter", "a.scale", "a.w")})

    result = a_round.result(find_strategy("FedAvg", {"rules": rules, "server_learning_rate": 0.5}))

    assert values(result) == {"head.w": 0, "a.counter": 6, "a.scale": 4, "a.w": 2}


def test_the_last_rule_that_matches_counts_and_any_is_before_the_default(a_round):
    rules = {"bn.*": "keep", "*running_var": "max"}
    a_round.begin_with(normalised(0, 1, 10))
    a_round.receive(normalised(2, 4, 30, weight=1))
    a_round.receive(normalised(6, 8, 20, weight=1))

    result = values(a_round.result(find_strategy("FedAvg", {"rules": rules})))

    assert result == {"bn.weight": 0, "bn.running_mean": 0, "bn.running_var": 8, "bn.num_batches_tracked": 10}


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u2", "i4", "i8", "u8", "?"])
@pytest.mark.parametrize(("rule", "expected"), [("keep", 0), ("max", 1)])
def test_rules_are_for_every_dtype(a_round, dtype, rule, expected):
    a_round.begin_with({"x": np.array([0, 0], dtype)})
    for value in ([0, 1], [1, 1], [0, 0]):
        a_round.receive({"x": np.array(value, dtype)})

    result = a_round.result(find_strategy("FedAvg", {"rules": {"x": rule}}))["x"]

    assert (result.tolist(), result.dtype) == ([expected, expected], np.dtype(dtype))


def test_what_is_kept_is_kept_to_the_bit_and_what_is_largest_is_the_largest_of_large_numbers(a_round):
    large = np.array([2**63 - 1, -(2**63), 2**53 + 1])
    a_round.begin_with({"kept": large, "largest": np.zeros(3, "i8")})
    a_round.receive({"kept": np.zeros(3, "i8"), "largest": large})
    a_round.receive({"kept": np.zeros(3, "i8"), "largest": large - [1, 0, 1]})

    result = a_round.result(find_strategy("FedAvg", {"rules": {"kept": "keep", "largest": "max"}}))

    assert result["kept"].tolist() == large.tolist()
    assert result["largest"].tolist() == large.tolist()


@pytest.mark.parametrize("name", ["FedAvg", "Median", "TrimmedMean", "Krum", "RFA", "CenteredClipping"])
def test_whole_numbers_beyond_what_float64_can_hold_are_merged_exactly(a_round, strategy_named, name):
    large = 2**60 + 1
    a_round.begin_with({"n": np.array([large])})
    for distance in (2, 4, 4, 4, 6):
        a_round.receive({"n": np.array([large + distance])})

    result = a_round.result(strategy_named(name))["n"].tolist()

    # To Krum all updates are alike, since it goes by floats alone.
    assert result == [large + (2 if name == "Krum" else 4)]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([], "rules are an object of patterns and one of keep, max, mean each"),
        ({"w": "median"}, "the rule for 'w' is one of keep, max, mean, not 'median'"),
        ({"w": ["keep"]}, "the rule for 'w' is one of keep, max, mean"),
        ({"w": "merge"}, "the rule for 'w' is one of keep, max, mean, not 'merge'"),
    ],
)
def test_rules_that_there_are_not_are_named(rules, message):
    with pytest.raises(InvalidValue, match=message):
        find_strategy("FedAvg", {"rules": rules})
