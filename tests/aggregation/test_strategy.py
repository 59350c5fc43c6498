from __future__ import annotations

import sys

import pytest

from folkmoot.aggregation import find_strategy, strategies
from folkmoot.aggregation.builtin import fedavg
from folkmoot.errors import InvalidValue, NotInstalled


def test_fedavg_is_found_by_its_name_without_options():
    assert find_strategy("FedAvg", {}) == fedavg()


def test_options_reach_the_strategy():
    assert find_strategy("FedAvg", {"server_learning_rate": 1}) == fedavg()
    assert find_strategy("FedAvg", {"server_learning_rate": 0.5}) == fedavg(server_learning_rate=0.5)


def test_all_strategies_are_listed_and_can_be_made():
    assert strategies()["FedAvg"] is fedavg
    assert list(strategies()) == sorted(strategies())


def test_an_unknown_strategy_is_answered_with_those_that_there_are():
    with pytest.raises(InvalidValue, match=r"there is no strategy 'FedAverage'; there are .*FedAvg"):
        find_strategy("FedAverage", {})


def test_an_unknown_option_is_answered_with_those_that_there_are():
    message = "FedAvg has no option 'lr'; its options are: clip, rules, scores, screen, server_learning_rate"
    with pytest.raises(InvalidValue, match=message):
        find_strategy("FedAvg", {"lr": 1})


@pytest.mark.parametrize("value", ["1", None, True, [1]])
def test_an_option_of_another_type_is_refused(value):
    with pytest.raises(InvalidValue, match="server_learning_rate' of FedAvg must be a number, not"):
        find_strategy("FedAvg", {"server_learning_rate": value})


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_an_option_out_of_its_range_is_refused(value):
    with pytest.raises(InvalidValue, match="the server learning rate is a number above 0"):
        find_strategy("FedAvg", {"server_learning_rate": value})


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An installed package that brings two strategies, one of which cannot be imported."""
    (tmp_path / "someones_plugin.py").write_text(
        "from folkmoot.aggregation.builtin import fedavg\n"
        "def make(*, trim: int, note: str = '', anything=None):\n"
        "    return fedavg()\n"
    )
    metadata = tmp_path / "someones_plugin-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-plugin\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[folkmoot.strategies]\nTrimmed = someones_plugin:make\nBroken = someones_plugin:nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("someones_plugin", None)


@pytest.mark.usefixtures("plugin")
def test_a_plugin_comes_through_the_same_door():
    assert find_strategy("Trimmed", {"trim": 2, "note": "x", "anything": [1]}) == fedavg()


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Trimmed needs the option 'trim'"),
        ({"trim": 1.5}, "'trim' of Trimmed must be a whole number, not 1.5"),
        ({"trim": 1, "note": 2}, "'note' of Trimmed must be text, not 2"),
        ({"trim": 1, "more": 2}, "its options are: anything, clip, note, rules, scores, screen, trim"),
    ],
)
def test_the_factorys_signature_is_the_schema_of_its_options(options, message):
    with pytest.raises(InvalidValue, match=message):
        find_strategy("Trimmed", options)


@pytest.mark.usefixtures("plugin")
def test_a_plugin_that_cannot_be_loaded_is_named():
    with pytest.raises(NotInstalled, match="the strategy Broken cannot be loaded; the log says why"):
        find_strategy("Broken", {})


@pytest.fixture
def rival(tmp_path, monkeypatch):
    """An installed package that has a FedAvg of its own."""
    (tmp_path / "rival_plugin.py").write_text("def make():\n    raise SystemExit\n")
    metadata = tmp_path / "rival_plugin-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rival-plugin\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[folkmoot.strategies]\nFedAvg = rival_plugin:make\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("rival")
def test_no_other_package_gets_to_say_what_fedavg_is(caplog):
    assert find_strategy("FedAvg", {}) == fedavg()
    assert "two packages have a strategy FedAvg" in caplog.text


@pytest.mark.usefixtures("plugin")
def test_a_plugin_that_cannot_be_loaded_does_not_take_the_others_with_it(caplog):
    assert {"FedAvg", "Trimmed"} <= set(strategies())
    assert "Broken" not in strategies()
    assert "the strategy Broken cannot be loaded; the log says why" in caplog.text


@pytest.mark.parametrize("value", [10**400, -(10**400)])
@pytest.mark.parametrize(
    ("name", "option"),
    [("FedAvg", "server_learning_rate"), ("FedAvg", "clip"), ("CenteredClipping", "radius"), ("q-FedAvg", "q")],
)
def test_a_whole_number_that_no_float_can_hold_is_refused(name, option, value):
    with pytest.raises(InvalidValue, match=r"must be a number, not|clip is a number above 0"):
        find_strategy(name, {option: value})


@pytest.fixture(params=["raise RuntimeError('on import')", "def make(:", "import nothing_of_the_kind"])
def broken(request, tmp_path, monkeypatch):
    """An installed package that cannot be imported, for one reason or another."""
    (tmp_path / "broken_plugin.py").write_text(request.param + "\n")
    metadata = tmp_path / "broken_plugin-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[folkmoot.strategies]\nBroken = broken_plugin:make\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("broken")
def test_whatever_is_wrong_with_a_plugin_the_others_can_be_used():
    assert "FedAvg" in strategies()
    assert find_strategy("FedAvg", {}) == fedavg()
    with pytest.raises(NotInstalled, match="the strategy Broken cannot be loaded; the log says why"):
        find_strategy("Broken", {})


@pytest.mark.parametrize("value", [1e200, 1e-200, float("inf"), -1e200])
def test_a_number_that_could_not_be_computed_with_is_refused(value):
    with pytest.raises(InvalidValue, match="'tau' of FedAdam must be a number, not"):
        find_strategy("FedAdam", {"tau": value})


@pytest.mark.parametrize(
    ("option", "value"), [("buffer_size", 10**7), ("buffer_size", 0), ("max_staleness", 10**19), ("max_staleness", -1)]
)
def test_a_buffer_has_its_limits(option, value):
    with pytest.raises(InvalidValue, match=f"{option} is from"):
        find_strategy("FedBuff", {"buffer_size": 2, option: value})


def test_rules_have_their_limits():
    with pytest.raises(InvalidValue, match="rules are at most 100 patterns"):
        find_strategy("FedAvg", {"rules": {f"layer{number}": "keep" for number in range(101)}})
    with pytest.raises(InvalidValue, match="of at most 200 characters each"):
        find_strategy("FedAvg", {"rules": {"*a" * 101: "keep"}})
