"""Strategies that differ in how much each update counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from folkmoot.aggregation import find_strategy
from folkmoot.errors import AggregationFailed, InvalidValue
from folkmoot.tensors import TensorFile, write_tensors


def model(*values: float) -> dict[str, np.ndarray]:
    return {"w": np.array(values, "f4")}


def random_round(a_round, num_updates=6):
    """Models of two tensors near a base; returns the base and the updates as float64 vectors."""
    random = np.random.default_rng(11)

    def tensors(around=None):
        step = {"a": random.standard_normal(33).astype("f4"), "b": random.standard_normal((4, 5))}
        return step if around is None else {name: around[name] + step[name] / 8 for name in step}

    base = tensors()
    a_round.begin_with(base)
    for _ in range(num_updates):
        a_round.receive(
            tensors(base),
            int(random.integers(1, 100)),
            metrics={"local_steps": int(random.integers(1, 20)), "loss": float(random.uniform(0.1, 3))},
        )
    return vector(base), [vector(each) for each in a_round.tensors]


def vector(tensors) -> np.ndarray:
    return np.concatenate([np.asarray(tensors[name], "f8").ravel() for name in sorted(tensors)])


def assert_near(result, expected):
    """To the precision of float32, which the first tensor has."""
    np.testing.assert_allclose(vector(result), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(vector(result)[33:], expected[33:], rtol=1e-12, atol=1e-13)


# FedAvg, and what is FedAvg to the server


def slow_fedavg(base, updates, num_examples, learning_rate=1.0):
    """McMahan et al. 2017, Algorithm 1: the sum over k of n_k / n times w_k."""
    mean = sum(n / sum(num_examples) * w for n, w in zip(num_examples, updates, strict=True))
    return base + learning_rate * (mean - base)


@pytest.mark.parametrize("name", ["FedAvg", "FedProx", "FedDC"])
@pytest.mark.parametrize("learning_rate", [1.0, 0.25])
def test_fedavg_counts_updates_by_their_examples(a_round, name, learning_rate):
    base, updates = random_round(a_round)

    result = a_round.result(find_strategy(name, {"server_learning_rate": learning_rate}))

    num_examples = [update.num_examples for update in a_round.updates]
    assert_near(result, slow_fedavg(base, updates, num_examples, learning_rate))


# FedNova


def test_fednova_by_hand(a_round):
    a_round.begin_with(model(0))
    a_round.receive(model(2), 1, metrics={"local_steps": 1})
    a_round.receive(model(8), 3, metrics={"local_steps": 4})

    # Both went 2 a step; on average, by examples, 1/4 * 1 + 3/4 * 4 = 3.25 steps.
    assert a_round.result(find_strategy("FedNova", {}))["w"].tolist() == [6.5]


def slow_fednova(base, updates, num_examples, steps, momentum=0.0):
    """Wang et al. 2020, equation 7: d_k is the delta divided by the sum of the vector a_k of section 4.1."""
    shares = [n / sum(num_examples) for n in num_examples]
    norms = [sum((1 - momentum ** (count - i)) / (1 - momentum) for i in range(count)) for count in steps]
    effective = sum(p * norm for p, norm in zip(shares, norms, strict=True))
    directions = [(w - base) / norm for w, norm in zip(updates, norms, strict=True)]
    return base + effective * sum(p * d for p, d in zip(shares, directions, strict=True))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fednova_is_that_of_the_paper(a_round, momentum):
    base, updates = random_round(a_round)

    result = a_round.result(find_strategy("FedNova", {"local_momentum": momentum}))

    steps = [update.metrics["local_steps"] for update in a_round.updates]
    num_examples = [update.num_examples for update in a_round.updates]
    assert_near(result, slow_fednova(base, updates, num_examples, steps, momentum))


def test_fednova_of_equal_steps_is_fedavg(a_round):
    base, updates = random_round(a_round)
    a_round.updates = [replace(update, metrics={"local_steps": 4}) for update in a_round.updates]

    result = a_round.result(find_strategy("FedNova", {}))

    assert_near(result, slow_fedavg(base, updates, [update.num_examples for update in a_round.updates]))


# q-FedAvg


def test_q_fedavg_by_hand(a_round):
    a_round.begin_with(model(0))
    a_round.receive(model(1), metrics={"loss": 1})
    a_round.receive(model(-3), metrics={"loss": 3})

    # With L = 1: gradients -1 and 3, times the loss -1 and 9; h is 1 + 1 and 9 + 3.
    result = a_round.result(find_strategy("q-FedAvg", {"q": 1, "local_learning_rate": 1}))

    assert result["w"].tolist() == pytest.approx([-(9 - 1) / (2 + 12)])


def slow_q_fedavg(base, updates, losses, q, local_learning_rate):
    """Li et al. 2020, Algorithm 2, lines 6 to 9."""
    lipschitz = 1 / local_learning_rate
    gradients = [lipschitz * (base - w) for w in updates]
    deltas = [loss**q * gradient for loss, gradient in zip(losses, gradients, strict=True)]
    steps = [
        q * loss ** (q - 1) * (gradient @ gradient) + lipschitz * loss**q
        for loss, gradient in zip(losses, gradients, strict=True)
    ]
    return base - sum(deltas) / sum(steps)


@pytest.mark.parametrize("q", [0, 0.5, 1, 5])
def test_q_fedavg_is_that_of_the_paper(a_round, q):
    base, updates = random_round(a_round)

    result = a_round.result(find_strategy("q-FedAvg", {"q": q, "local_learning_rate": 0.2}))

    losses = [update.metrics["loss"] + 1e-10 for update in a_round.updates]  # as in the authors' code
    assert_near(result, slow_q_fedavg(base, updates, losses, q, 0.2))


@pytest.mark.parametrize("q", [0, 0.5, 1])
def test_q_fedavg_takes_losses_of_zero(a_round, q):
    a_round.begin_with(model(1))
    for _ in range(2):
        a_round.receive(model(1), metrics={"loss": 0})

    assert a_round.result(find_strategy("q-FedAvg", {"q": q}))["w"].tolist() == [1]


# SCAFFOLD


def with_control(value: float, change: float) -> dict[str, np.ndarray]:
    return model(value) | {"control_variate/w": np.array([change], "f4")}


def test_scaffold_by_hand_over_two_rounds(a_round):
    """Karimireddy et al. 2020, Algorithm 1, line 17: x moves by the mean of dy, c by |S| / N times that of dc."""
    strategy = find_strategy("SCAFFOLD", {"participation": 0.5, "server_learning_rate": 2})
    a_round.begin_with(model(1))
    a_round.receive(with_control(3, 2), num_examples=1)
    a_round.receive(with_control(5, 4), num_examples=9)
    assert a_round.result(strategy)["w"].tolist() == [1 + 2 * 3]
    a_round.go_on()
    assert state_of(a_round) == {"control_variate/w": [0.5 * 3]}

    a_round.receive(with_control(8, -1))
    assert a_round.result(strategy)["w"].tolist() == [7 + 2 * 1]
    a_round.go_on()
    assert state_of(a_round) == {"control_variate/w": [0.5 * 3 - 0.5 * 1]}


def state_of(a_round):
    return {name: tensor.tolist() for name, tensor in TensorFile.open(a_round.state).items()}


def test_only_what_the_strategy_merges_has_a_control_variate(a_round):
    """Of every dtype of floats; none of statistics or counters."""
    extra = {"bn.running_mean": np.ones(2, "f4"), "n": np.array([1])}
    floats = {"f2": np.ones(3, "f2"), "f8": np.ones(3, "f8")}
    strategy = find_strategy("SCAFFOLD", {})
    a_round.begin_with(floats | extra)
    a_round.receive(floats | extra | {f"control_variate/{name}": 2 * each for name, each in floats.items()})

    a_round.aggregate(strategy)
    a_round.go_on()

    assert state_of(a_round) == {"control_variate/f2": [2, 2, 2], "control_variate/f8": [2, 2, 2]}
    assert {name: str(each.dtype) for name, each in TensorFile.open(a_round.state).items()} == {
        "control_variate/f2": "float32",
        "control_variate/f8": "float64",
    }


@pytest.mark.parametrize("participation", [0, -0.5, 1.5, float("nan")])
def test_a_share_of_participants_is_above_0_and_at_most_1(participation):
    with pytest.raises(InvalidValue, match="participation is above 0 and at most 1, not"):
        find_strategy("SCAFFOLD", {"participation": participation})


# FedBuff


def test_fedbuff_by_hand(a_round):
    write_tensors(a_round.folder / "old", model(0))
    a_round.begin_with(model(10))
    a_round.receive(model(12), num_examples=99)
    a_round.receive(model(8), base=a_round.folder / "old", staleness=3)

    # The steps 2 and 8, the late one at 1 / sqrt(1 + 3).
    assert a_round.result(find_strategy("FedBuff", {"buffer_size": 2}))["w"].tolist() == [10 + (2 + 8 / 2) / 2]


def slow_fedbuff(base, updates, bases, staleness, learning_rate):
    """Nguyen et al. 2022, Algorithm 1: the mean of the buffered steps, scaled as in section 5."""
    steps = [(w - b) / np.sqrt(1 + late) for w, b, late in zip(updates, bases, staleness, strict=True)]
    return base + learning_rate * sum(steps) / len(steps)


def test_fedbuff_is_that_of_the_paper(a_round):
    base, updates = random_round(a_round)
    staleness, bases = [0, 1, 3, 2, 5, 0], [base] * 6
    for number, late in enumerate(staleness):
        if late:
            older = {name: tensor + late for name, tensor in a_round.tensors[number].items()}
            path = a_round.folder / f"older by {late}"
            write_tensors(path, older)
            bases[number] = vector(older)
            a_round.updates[number] = replace(a_round.updates[number], base=path, staleness=late)

    result = a_round.result(find_strategy("FedBuff", {"buffer_size": 6, "server_learning_rate": 0.5}))

    assert_near(result, slow_fedbuff(base, updates, bases, staleness, 0.5))


def test_a_late_update_counts_from_the_model_that_it_began_with_in_every_strategy(a_round):
    write_tensors(a_round.folder / "old", model(0))
    a_round.begin_with(model(10))
    for value in (1, 2, 6):
        a_round.receive(model(value), base=a_round.folder / "old", staleness=1)

    assert a_round.result(find_strategy("FedAvg", {}))["w"].tolist() == [13]
    assert a_round.result(find_strategy("Median", {}))["w"].tolist() == [12]


# what they cannot do


@pytest.mark.parametrize(("name", "metric"), [("FedNova", "local_steps"), ("q-FedAvg", "loss")])
def test_a_metric_that_is_missing_is_named_with_the_updates(a_round, name, metric):
    a_round.begin_with(model(1))
    a_round.receive(model(1), id="a")
    a_round.receive(model(1), id="b", metrics={metric: 1})
    a_round.receive(model(1), id="c")

    with pytest.raises(AggregationFailed, match=f"the metric '{metric}' is needed and missing from update a, c"):
        a_round.aggregate(find_strategy(name, {}))


@pytest.mark.parametrize(
    ("name", "metric", "values", "least"),
    [("FedNova", "local_steps", [0, -1, 0.5], 1), ("q-FedAvg", "loss", [-0.1, -1], 0)],
)
def test_a_metric_out_of_its_range_is_named_with_its_update(a_round, name, metric, values, least):
    for value in [*values, float("nan"), float("inf")]:
        a_round.begin_with(model(1))
        a_round.receive(model(1), metrics={metric: value}, id=f"of {value}")
        with pytest.raises(AggregationFailed, match=f"has {metric} .*, expected at least {least}$"):
            a_round.aggregate(find_strategy(name, {}), updates=a_round.updates[-1:])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("FedNova", {"local_momentum": 1}, "local_momentum is at least 0 and below 1, not 1"),
        ("FedNova", {"local_momentum": -0.1}, "local_momentum is at least 0"),
        ("q-FedAvg", {"q": -1}, "q is a number of at least 0, not -1"),
        ("q-FedAvg", {"local_learning_rate": 0}, "local_learning_rate is a number above 0, not 0"),
        ("FedBuff", {"buffer_size": 0}, "buffer_size is from 1 to 1,000,000"),
        ("FedBuff", {"buffer_size": 1, "max_staleness": -1}, "max_staleness is from 0 to 1,000,000"),
        ("FedBuff", {}, "FedBuff needs the option 'buffer_size'"),
        ("FedBuff", {"buffer_size": 2.5}, "'buffer_size' of FedBuff must be a whole number, not 2.5"),
    ],
)
def test_options_out_of_their_range_are_named(name, options, message):
    with pytest.raises(InvalidValue, match=message):
        find_strategy(name, options)
