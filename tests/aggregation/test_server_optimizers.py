"""What the server makes of a round's aggregate, and what it keeps from round to round."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from folkmoot.aggregation import find_strategy
from folkmoot.errors import AggregationFailed, InvalidValue, SchemaMismatch
from folkmoot.tensors import TensorFile

OPTIMIZERS = ["FedAvgM", "FedAdagrad", "FedAdam", "FedYogi"]


def tensors(random: np.random.Generator) -> dict[str, np.ndarray]:
    return {"a": random.standard_normal(33).astype("f4"), "b": random.standard_normal((4, 5))}


def play(a_round, strategy, *, rounds: int, first: int = 0) -> list[dict[str, np.ndarray]]:
    """Rounds of five updates each, always the same ones; returns the models."""
    models = []
    for number in range(first, first + rounds):
        random = np.random.default_rng(number)
        for _ in range(5):
            a_round.receive(tensors(random), int(random.integers(1, 50)))
        models.append(a_round.result(strategy))
        a_round.go_on()
    return models


# by hand


def one_value(a_round, strategy, *updates: float, base: float | None = None) -> float:
    """The next model after a round of these updates, of a model of one value."""
    if base is not None:
        a_round.begin_with({"w": np.array([base], "f8")})
    for update in updates:
        a_round.receive({"w": np.array([update], "f8")})
    value = float(a_round.result(strategy)["w"][0])
    a_round.go_on()
    return value


def test_fedavgm_by_hand(a_round):
    strategy = find_strategy("FedAvgM", {"server_learning_rate": 0.5, "momentum": 0.5})

    assert one_value(a_round, strategy, 3, 5, base=0) == 2  # v = 4
    assert one_value(a_round, strategy, 4) == 4  # v = 4 / 2 + 2
    assert one_value(a_round, strategy, 4) == 5  # v = 4 / 2 + 0


def test_fedadagrad_by_hand(a_round):
    strategy = find_strategy("FedAdagrad", {"server_learning_rate": 1.0, "tau": 3.0})

    assert one_value(a_round, strategy, 4, base=0) == 4 / (5 + 3)  # the root of 9 + 16
    assert one_value(a_round, strategy, 12.5) == 0.5 + 12 / (13 + 3)  # that of 25 + 144


def test_fedadam_by_hand(a_round):
    strategy = find_strategy("FedAdam", {"server_learning_rate": 1.0, "beta_1": 0.5, "beta_2": 0.5, "tau": 2.0})

    # m = 2 / 2; v = 4 / 2 + 4 / 2
    assert one_value(a_round, strategy, 2, base=0) == 1 / (2 + 2)


def test_fedyogi_by_hand(a_round):
    strategy = find_strategy("FedYogi", {"server_learning_rate": 1.0, "beta_1": 0.0, "beta_2": 0.5, "tau": 1.0})

    # v = 1 + 16 / 2, and then 9 - 4 / 2
    assert one_value(a_round, strategy, 4, base=0) == 4 / (3 + 1)
    assert one_value(a_round, strategy, 3) == pytest.approx(1 + 2 / (7**0.5 + 1))


# against the papers


class Slow:
    """Reddi et al. 2021, Algorithm 2, and Hsu et al. 2019, section 4.3; the state is as precise as the model."""

    def __init__(self, name: str, base: dict[str, np.ndarray], options: dict[str, float]) -> None:
        self.name, self.options = name, options
        self.x = {name: each.copy() for name, each in base.items()}
        self.m = {name: np.zeros_like(each) for name, each in base.items()}
        self.v = {name: np.full_like(each, options.get("tau", 0) ** 2) for name, each in base.items()}

    def move(self, aggregate: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name in self.x:
            x, m, v = (each[name].astype("f8") for each in (self.x, self.m, self.v))
            x, m, v = self._step(x, m, v, aggregate[name] - x)
            dtype = self.x[name].dtype
            self.x[name], self.m[name], self.v[name] = x.astype(dtype), m.astype(dtype), v.astype(dtype)
        return dict(self.x)

    def _step(self, x, m, v, delta):
        eta = self.options["server_learning_rate"]
        if self.name == "FedAvgM":
            m = self.options["momentum"] * m + delta
            return x + eta * m, m, v
        beta_1, tau = self.options["beta_1"], self.options["tau"]
        m = beta_1 * m + (1 - beta_1) * delta
        if self.name == "FedAdagrad":
            v = v + delta**2
        elif self.name == "FedAdam":
            v = self.options["beta_2"] * v + (1 - self.options["beta_2"]) * delta**2
        else:
            v = v - (1 - self.options["beta_2"]) * delta**2 * np.sign(v - delta**2)
        return x + eta * m / (np.sqrt(v) + tau), m, v


OPTIONS = {
    "FedAvgM": {"server_learning_rate": 0.7, "momentum": 0.8},
    "FedAdagrad": {"server_learning_rate": 0.3, "beta_1": 0.2, "tau": 0.01},
    "FedAdam": {"server_learning_rate": 0.3, "beta_1": 0.8, "beta_2": 0.9, "tau": 0.01},
    "FedYogi": {"server_learning_rate": 0.3, "beta_1": 0.8, "beta_2": 0.9, "tau": 0.01},
}
OVER = {
    "FedAvg": lambda rows, weights: np.average(rows, axis=0, weights=weights),
    "Median": lambda rows, weights: np.median(rows, axis=0),
}


@pytest.mark.parametrize("aggregator", sorted(OVER))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_rounds_are_those_of_the_paper(a_round, name, aggregator):
    base = tensors(np.random.default_rng(99))
    a_round.begin_with(base)
    strategy = find_strategy(name, OPTIONS[name] | {"aggregator": aggregator})

    models = play(a_round, strategy, rounds=5)

    slow = Slow(name, base, OPTIONS[name])
    for number, model in enumerate(models):
        random = np.random.default_rng(number)
        updates, weights = zip(*[(tensors(random), int(random.integers(1, 50))) for _ in range(5)], strict=True)
        rows = {each: np.stack([update[each].astype("f8") for update in updates]) for each in base}
        expected = slow.move({each: OVER[aggregator](rows[each], weights) for each in base})
        np.testing.assert_allclose(model["a"], expected["a"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(model["b"], expected["b"], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_over_krum_the_step_is_towards_the_chosen_update(a_round, name):
    a_round.begin_with({"w": np.zeros(2)})
    for values in ([1, 1], [1.1, 1], [0.9, 1], [1, 0.9], [-1e6, 1e6]):
        a_round.receive({"w": np.array(values, "f8")}, num_examples=1000 if values[0] < 0 else 1)
    options = {"aggregator": "Krum", "aggregator_options": {"num_byzantine": 1}}

    result = a_round.result(find_strategy(name, options))

    assert (result["w"] > 0).all()
    assert (result["w"] < 2).all()


# over others


def test_what_the_aggregators_strategy_has_beside_it_is_kept():
    over = find_strategy("FedAdam", {"aggregator": "FedBuff", "aggregator_options": {"buffer_size": 3, "clip": 2}})

    assert over.buffer == find_strategy("FedBuff", {"buffer_size": 3}).buffer
    assert over.clip == 2
    assert find_strategy("FedAdam", {"aggregator": "SCAFFOLD"}).control_variate


def test_control_variates_and_an_optimizers_state_live_in_one_file(a_round):
    strategy = find_strategy("FedAvgM", {"aggregator": "SCAFFOLD", "momentum": 0.5})
    a_round.begin_with({"w": np.zeros(2, "f4")})
    for expected in ([1, 1], [2.5, 2.5]):
        moved = TensorFile.open(a_round.base)["w"] + 1
        a_round.receive({"w": moved, "control_variate/w": np.full(2, 3, "f4")})
        assert a_round.result(strategy)["w"].tolist() == expected
        a_round.go_on()

    assert {name: each.tolist() for name, each in TensorFile.open(a_round.state).items()} == {
        "control_variate/w": [6, 6],
        "momentum/w": [1.5, 1.5],
    }


@pytest.mark.parametrize(
    "options",
    [
        {"aggregator": "FedYogi"},
        {"aggregator": "FedAvg", "aggregator_options": {"server_learning_rate": 0.5}},
    ],
)
def test_of_two_server_optimizers_none_is_dropped_in_silence(options):
    with pytest.raises(InvalidValue, match="has a server optimizer or a learning rate of its own"):
        find_strategy("FedAdam", options)


def test_an_aggregator_that_there_is_not_is_answered_with_those_that_there_are():
    with pytest.raises(InvalidValue, match=r"there is no strategy 'Mean'; there are .*FedAvg"):
        find_strategy("FedAdam", {"aggregator": "Mean"})
    with pytest.raises(InvalidValue, match="Krum needs the option 'num_byzantine'"):
        find_strategy("FedAdam", {"aggregator": "Krum"})


def test_the_least_number_of_updates_is_that_of_the_aggregator(a_round):
    strategy = find_strategy("FedYogi", {"aggregator": "Krum", "aggregator_options": {"num_byzantine": 2}})
    a_round.begin_with({"w": np.zeros(2)})
    a_round.receive({"w": np.zeros(2)})

    assert strategy.min_updates == 7
    with pytest.raises(AggregationFailed, match=r"^FedYogi needs 7 updates, and there is 1$"):
        a_round.aggregate(strategy)


# the state


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restart_from_the_files_goes_on_to_the_same_bits(a_round, tmp_path, name):
    strategy = find_strategy(name, OPTIONS[name])
    a_round.begin_with(tensors(np.random.default_rng(99)))
    play(a_round, strategy, rounds=2)
    elsewhere = type(a_round)(shutil.copytree(tmp_path, tmp_path / "elsewhere"))
    elsewhere.state = elsewhere.folder / "state"

    play(a_round, strategy, rounds=3, first=2)
    play(elsewhere, find_strategy(name, OPTIONS[name]), rounds=3, first=2)

    assert elsewhere.base.read_bytes() == a_round.base.read_bytes()
    assert elsewhere.state.read_bytes() == a_round.state.read_bytes()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_matters(a_round, name):
    strategy = find_strategy(name, OPTIONS[name])
    a_round.begin_with(tensors(np.random.default_rng(99)))
    play(a_round, strategy, rounds=2)
    base = shutil.copy(a_round.base, a_round.folder / "kept")

    play(a_round, strategy, rounds=1, first=2)
    with_state = a_round.base.read_bytes()
    shutil.copy(base, a_round.base)
    a_round.state = None
    play(a_round, strategy, rounds=1, first=2)

    assert a_round.base.read_bytes() != with_state


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("other", OPTIMIZERS)
def test_a_state_of_another_strategy_is_refused(a_round, name, other):
    a_round.begin_with(tensors(np.random.default_rng(99)))
    play(a_round, find_strategy(other, {}), rounds=1)
    if name == other:
        play(a_round, find_strategy(name, {}), rounds=1)
        return

    with pytest.raises(SchemaMismatch, match=r"^the strategy's state does not fit"):
        play(a_round, find_strategy(name, {}), rounds=1)

    assert a_round.left_behind() == {"state"}


def test_a_state_of_another_model_is_refused(a_round):
    strategy = find_strategy("FedAvgM", {})
    one_value(a_round, strategy, 1, base=0)
    a_round.begin_with({"w": np.zeros(2)})
    a_round.receive({"w": np.zeros(2)})

    with pytest.raises(SchemaMismatch, match="the strategy's state does not fit the model: momentum/w is"):
        a_round.aggregate(strategy)


def test_a_strategy_with_state_says_where_it_has_to_go_and_one_without_that_it_has_none(a_round):
    a_round.begin_with({"w": np.zeros(2)})
    a_round.receive({"w": np.zeros(2)})

    with pytest.raises(InvalidValue, match="keeps state from round to round: say with state_output"):
        a_round.aggregate(find_strategy("FedAdam", {}), state_output=None)
    with pytest.raises(InvalidValue, match="keeps no state"):
        a_round.aggregate(find_strategy("FedAvg", {}), state_output=a_round.folder / "state")


def test_neither_file_is_left_when_the_state_overflows(a_round):
    a_round.begin_with({"w": np.zeros(2, "f4")})
    a_round.receive({"w": np.array([0, 1e30], "f4")})

    with pytest.raises(AggregationFailed, match="not finite"):
        a_round.aggregate(find_strategy("FedAdagrad", {}))

    assert a_round.left_behind() == set()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("FedAvgM", {"momentum": 1}, "momentum is at least 0 and below 1, not 1"),
        ("FedAvgM", {"server_learning_rate": -1}, "server learning rate is a number above 0, not -1"),
        ("FedAdagrad", {"tau": 0}, "tau is a number above 0, not 0"),
        ("FedAdam", {"beta_1": 1.5}, "beta_1 is at least 0 and below 1, not 1.5"),
        ("FedAdam", {"beta_2": -0.5}, "beta_2 is at least 0 and below 1, not -0.5"),
        ("FedYogi", {"beta_2": float("nan")}, "beta_2 is at least 0 and below 1, not nan"),
        ("FedYogi", {"aggregator": 3}, "'aggregator' of FedYogi must be text, not 3"),
        ("FedYogi", {"aggregator_options": []}, "'aggregator_options' of FedYogi must be an object"),
    ],
)
def test_options_out_of_their_range_are_named(name, options, message):
    with pytest.raises(InvalidValue, match=message):
        find_strategy(name, options)
