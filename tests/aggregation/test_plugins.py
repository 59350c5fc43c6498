"""Strategies of a third party, from a package that is installed for real, work like ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from folkmoot.aggregation import find_strategy, strategies
from folkmoot.errors import AggregationFailed, InvalidValue, NotInstalled
from folkmoot.tensors import TensorFile

CODE = '''
"""Everything that a package can bring: see the tests of Folkmoot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from folkmoot.aggregation import Cohort, Measure, Strategy, Weights
from folkmoot.errors import InvalidValue


@dataclass(frozen=True)
class Nearest:
    """The mean of the updates whose deltas have the smallest norms."""

    count: int
    measure = Measure.NORMS

    @property
    def min_updates(self) -> int:
        return self.count

    def weigh(self, cohort: Cohort) -> Weights:
        return Weights(np.isin(np.arange(len(cohort)), np.argsort(cohort.norms, kind="stable")[: self.count]).tolist())


@dataclass(frozen=True)
class Midrange:
    """Every value is between the smallest and the largest."""

    measure = Measure.NOTHING
    min_updates = 2

    def weigh(self, cohort: Cohort) -> Weights:
        return Weights(np.ones(len(cohort)))

    def merge(self, values: np.ndarray, out: np.ndarray) -> None:
        np.add(values[0], values[-1], out=out, dtype=np.float64)
        out /= 2


@dataclass(frozen=True)
class Averaging:
    """The mean of all aggregates so far."""

    @property
    def initial_state(self) -> Mapping[str, float]:
        return {"sum": 0.0, "rounds": 0.0}

    def step(self, aggregate: np.ndarray, *, base: Callable[[], np.ndarray], state: Mapping[str, np.ndarray]) -> None:
        state["sum"] += aggregate
        state["rounds"] += 1
        np.divide(state["sum"], state["rounds"], out=aggregate)


class AsItIs:
    initial_state: Mapping[str, float] = {}

    def step(self, aggregate: np.ndarray, *, base: Callable[[], np.ndarray], state: Mapping[str, np.ndarray]) -> None:
        pass


def nearest(*, count: int = 2, note: Optional[str] = None) -> Strategy:
    if count < 1:
        raise InvalidValue(f"count is at least 1, not {count}")
    return Strategy(Nearest(count), AsItIs())


def midrange(averaged: bool = False, sizes: list[int] | None = None, **more: Any) -> Strategy:
    return Strategy(Midrange(), Averaging() if averaged else AsItIs())


class TooFew(Nearest):
    def weigh(self, cohort: Cohort) -> Weights:
        return Weights(np.ones(1))


class NoneAtAll(Nearest):
    def weigh(self, cohort: Cohort) -> Weights:
        return Weights(np.zeros(len(cohort)))


def too_few() -> Strategy:
    return Strategy(TooFew(1), AsItIs())


def none_at_all() -> Strategy:
    return Strategy(NoneAtAll(1), AsItIs())


def no_strategy() -> Any:
    return "FedAvg"


def unreadable(*, size: NotThere = 1) -> Strategy:
    return nearest()
'''
ENTRY_POINTS = """[folkmoot.strategies]
Nearest = someones_strategies:nearest
Midrange = someones_strategies:midrange
TooFew = someones_strategies:too_few
NoneAtAll = someones_strategies:none_at_all
NoStrategy = someones_strategies:no_strategy
Unreadable = someones_strategies:unreadable
"""


def build_wheel(folder: Path) -> Path:
    """What a build of such a package ends with, without a build system, which would have to be downloaded."""
    path = folder / "someones_strategies-1.0-py3-none-any.whl"
    info = "someones_strategies-1.0.dist-info"
    files = {
        "someones_strategies.py": CODE,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: someones-strategies\nVersion: 1.0\nRequires-Dist: folkmoot\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": ENTRY_POINTS,
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in (files | {f"{info}/RECORD": record}).items():
            wheel.writestr(name, text)
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the package was installed into."""
    folder = tmp_path_factory.mktemp("plugin")
    target = folder / "installed"
    options = ["--no-deps", "--no-index", "--no-compile", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(build_wheel(folder))]
    subprocess.run(command, check=True, capture_output=True)
    return target


@pytest.fixture(autouse=True)
def plugin(installed, monkeypatch):
    monkeypatch.syspath_prepend(installed)
    yield
    sys.modules.pop("someones_strategies", None)


def play(a_round, strategy, *rows):
    if not a_round.base.exists():
        a_round.begin_with({"w": np.zeros(2, "f4"), "bn.running_var": np.ones(2, "f4"), "n": np.array([0])})
    for row in rows:
        a_round.receive({"w": np.array(row, "f4"), "bn.running_var": np.array(row, "f4"), "n": np.array([row[0]])})
    result = a_round.result(strategy)
    a_round.go_on()
    return {name: tensor.tolist() for name, tensor in result.items()}


def test_they_are_listed_with_ours():
    assert {"FedAvg", "Nearest", "Midrange"} <= set(strategies())


def test_an_aggregator_of_its_own_weighs_the_updates(a_round):
    result = play(a_round, find_strategy("Nearest", {}), [1, 1], [-90, 0], [3, 0], [0, 50])

    assert result == {"w": [2, 0.5], "bn.running_var": [2, 0.5], "n": [2]}


def test_a_coordinatewise_aggregator_of_its_own_sees_sorted_columns(a_round):
    result = play(a_round, find_strategy("Midrange", {}), [3, 0], [1, 8], [2, -2])

    assert result == {"w": [2, 3], "bn.running_var": [2, 3], "n": [2]}


def test_a_server_optimizer_of_its_own_finds_its_state_again(a_round):
    strategy = find_strategy("Midrange", {"averaged": True})

    assert strategy.keeps_state
    assert play(a_round, strategy, [0, 0], [2, 4])["w"] == [1, 2]
    assert play(a_round, strategy, [4, 4], [6, 4])["w"] == [3, 3]
    assert play(a_round, strategy, [0, 1], [0, 7])["w"] == [2, pytest.approx(10 / 3)]
    assert {name: tensor.tolist() for name, tensor in TensorFile.open(a_round.state).items()} == {
        "rounds/w": [3, 3],
        "sum/w": [6, 10],
    }


def test_what_every_strategy_takes_it_takes_too(a_round):
    strategy = find_strategy("Nearest", {"clip": 5, "rules": {"n": "max"}, "screen": {"score": "norm", "bound": 60}})

    result = play(a_round, strategy, [30, 40], [90, 0], [0, 1])

    assert result["w"] == pytest.approx([1.5, 2.5])
    assert result["n"] == [30]


def test_our_server_optimizers_go_over_its_aggregator(a_round):
    strategy = find_strategy("FedAvgM", {"aggregator": "Midrange", "momentum": 0.5})

    assert play(a_round, strategy, [1, 1], [3, 5])["w"] == [2, 3]
    assert play(a_round, strategy, [1, 1], [3, 5])["w"] == [3, 4.5]
    with pytest.raises(InvalidValue, match="Midrange has a server optimizer or a learning rate of its own"):
        find_strategy("FedAvgM", {"aggregator": "Midrange", "aggregator_options": {"averaged": True}})


def test_the_same_bytes_come_out_in_whatever_order_the_updates_came(a_round):
    random = np.random.default_rng(1)
    a_round.begin_with({"w": random.standard_normal(300_000)})
    for _ in range(5):
        a_round.receive({"w": random.standard_normal(300_000)})

    for name in ("Nearest", "Midrange"):
        expected = a_round.aggregate(find_strategy(name, {}), threads=1, blocks_at_once=1)
        other = a_round.aggregate(find_strategy(name, {}), updates=a_round.updates[::-1], threads=3)
        assert (other.sha256, other.scores) == (expected.sha256, expected.scores)


def test_too_few_updates_are_an_error_with_its_name(a_round):
    with pytest.raises(AggregationFailed, match=r"^Nearest needs 3 updates, and there are 2$"):
        play(a_round, find_strategy("Nearest", {"count": 3}), [1, 1], [2, 2])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Nearest", {"count": "2"}, "'count' of Nearest must be a whole number, not '2'"),
        ("Nearest", {"note": 5}, "'note' of Nearest must be text or null, not 5"),
        ("Nearest", {"count": 0}, "count is at least 1, not 0"),
        ("Midrange", {"averaged": 1}, "'averaged' of Midrange must be true or false, not 1"),
        ("Midrange", {"more": 1}, "Midrange has no option 'more'; its options are: averaged, clip"),
    ],
)
def test_its_signature_is_the_schema_of_its_options(name, options, message):
    with pytest.raises(InvalidValue, match=message):
        find_strategy(name, options)


def test_an_option_of_a_type_that_json_does_not_have_is_left_to_the_factory():
    for value in ([1, 2], None, "any"):
        assert find_strategy("Midrange", {"sizes": value}).name == "Midrange"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoStrategy", "the strategy NoStrategy cannot be used: what makes it returned 'FedAvg'"),
        ("Unreadable", "the options of the strategy Unreadable cannot be read from its signature: name 'NotThere'"),
    ],
)
def test_a_fault_of_the_package_is_named(name, message):
    with pytest.raises(NotInstalled, match=message):
        find_strategy(name, {})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TooFew", r"the aggregator gave weights of shape \(1,\) for 2 updates"),
        ("NoneAtAll", "the weights of the updates must be 0 or more, and one of them above 0"),
    ],
)
def test_weights_that_cannot_be_are_an_error(a_round, name, message):
    with pytest.raises(AggregationFailed, match=message):
        play(a_round, find_strategy(name, {}), [1, 1], [2, 2])


def test_another_process_finds_it_where_it_is_installed(installed):
    code = "import json; from folkmoot.aggregation import strategies; print(json.dumps(list(strategies())))"
    path = os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True)

    assert {"Midrange", "Nearest", "FedAvg"} <= set(json.loads(done.stdout))
