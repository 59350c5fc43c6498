"""The tables, programs and figures of the page about aggregation."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folkmoot.aggregation import Strategy, Update, aggregate_files, find_strategy, strategies
from folkmoot.client import Hub
from folkmoot.tensors import TensorFile, write_tensors

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "aggregation.md").read_text()
CONTROL, PARTICIPANT, OWN_FILES, PLUGIN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TRAININGS = [json.loads(each) for each in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
(PROJECT,) = (tomllib.loads(each)["project"] for each in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
FOLKMOOT = str(Path(sys.executable).with_name("folkmoot"))
REQUIRED = inspect.Parameter.empty


def rows(*header: str) -> list[list[str]]:
    """The cells of all tables that begin like this."""
    first = re.escape("| " + " | ".join(header))
    tables = re.findall(rf"^{first}.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for table in tables for line in table.splitlines()]


def an_instance(name: str) -> Strategy:
    needed = {"num_byzantine": 2, "radius": 1.0, "buffer_size": 3}
    parameters = inspect.signature(strategies()[name]).parameters.values()
    return find_strategy(name, {each.name: needed[each.name] for each in parameters if each.default is REQUIRED})


def shown(default: Any) -> str:
    """As it stands in JSON."""
    return "" if default is REQUIRED else f"`{json.dumps(default)}`"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's package, as pip would install it."""
    (tmp_path / "fair_shares.py").write_text(PLUGIN)
    metadata = tmp_path / "fair_shares-1.0.dist-info"
    metadata.mkdir()
    name, version = PROJECT["name"], PROJECT["version"]
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    ((group, found),) = PROJECT["entry-points"].items()
    lines = [f"{name} = {where}\n" for name, where in found.items()]
    (metadata / "entry_points.txt").write_text(f"[{group}]\n" + "".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("fair_shares", None)


def test_every_strategy_is_in_the_table_with_what_it_costs() -> None:
    costs = {name.strip("`"): (passes, state) for name, passes, state, *_ in rows("`aggregation_method`", "passes")}
    assert sorted(costs) == list(strategies())
    for name, (passes, state) in costs.items():
        strategy = an_instance(name)
        kept = len(strategy.server_optimizer.initial_state) + bool(strategy.control_variate)
        assert (name, passes) == (name, "1" if strategy.aggregator.measure == 0 else "2")
        assert (name, state) == (name, ["", "1 model", "2 models"][kept])


def test_every_option_is_in_the_tables_with_its_default() -> None:
    listed: dict[str, dict[str, str]] = {}
    name = ""
    for method, option, default, _ in rows("`aggregation_method`", "option"):
        name = method.strip("`") or name
        listed.setdefault(name, {})[option.strip("`")] = default
    signatures = {name: inspect.signature(factory).parameters for name, factory in strategies().items()}
    assert listed == {
        name: {option: shown(each.default) for option, each in parameters.items()}
        for name, parameters in signatures.items()
    }


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training["aggregation_method"])
def test_the_pages_trainings_have_options_that_there_are(training: dict[str, Any]) -> None:
    find_strategy(training["aggregation_method"], training["options"].get("aggregation", {}))


def test_the_pages_program_merges_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(OWN_FILES, {})
    mean, scores = capsys.readouterr().out.splitlines()
    assert mean == "[2. 2. 0.]"
    assert "norm=6.0" in scores
    # The step and, in the second round, half of it once more: 2 - 2 + 0.5 * 2.
    assert TensorFile.open(Path("last"))["w"].tolist() == [3.0, 3.0, 0.0]


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "options", "merged"),
    [
        ("CappedMean", {"max_examples": 2}, (1 * 0 + 2 * 1 + 2 * 2 + 2 * 9 + 1 * 5) / 8),
        ("Midhinge", {}, (1 + 5) / 2),
    ],
)
def test_the_pages_strategies_are_found_and_merge(
    tmp_path: Path, name: str, options: dict[str, Any], merged: float
) -> None:
    write_tensors(tmp_path / "model", {"w": np.zeros(3, np.float32)})
    updates = []
    for number, (value, num_examples) in enumerate([(0, 1), (1, 2), (2, 7), (9, 100), (5, 1)]):
        write_tensors(tmp_path / f"{number}", {"w": np.full(3, value, np.float32)})
        updates.append(Update(f"{number}", tmp_path / f"{number}", num_examples))

    aggregate_files(find_strategy(name, options), tmp_path / "model", updates, tmp_path / "next")

    assert TensorFile.open(tmp_path / "next")["w"].tolist() == [merged] * 3


def test_the_pages_participant_corrects_its_gradients() -> None:
    names: dict[str, Any] = {}
    exec(CONTROL, names)
    zero, one, two = ({"w": np.full(2, value, np.float32)} for value in (0, 1, 2))

    update, own = names["train_with_control"](zero, lambda _: two, two, one, steps=4, learning_rate=0.25)

    # Four steps of 0.25 times 2 - 1 + 2. The new control variate is 1 - 2 + 3 / (4 * 0.25).
    assert update["w"].tolist() == [-3.0, -3.0]
    assert own["w"].tolist() == [2.0, 2.0]
    assert update["control_variate/w"].tolist() == [1.0, 1.0]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A hub on this machine, and what its only user sets to use it."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
    variables |= {"FOLKMOOT_DATA_DIR": str(tmp_path / "hub"), "PYTHONUNBUFFERED": "1"}
    serve = [FOLKMOOT, "serve", "--port", "0"]
    with subprocess.Popen(serve, env=variables, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"https?://\S+", server.stdout.readline())
            assert address is not None
            add = [FOLKMOOT, "user", "add", "ada"]
            token = subprocess.run(add, env=variables, check=True, capture_output=True, text=True).stdout.strip()
            yield variables | {"FOLKMOOT_URL": address[0], "FOLKMOOT_TOKEN": token}
        finally:
            server.terminate()


def test_the_pages_participant_takes_part_with_control_variates(environment: dict[str, str], tmp_path: Path) -> None:
    write_tensors(tmp_path / "uploaded", {"w": np.ones(2, np.float32)})
    mine = "num_examples = 10\n\ndef gradients(weights):\n    return dict(weights)\n\n"
    options = {"tests": "never", "local": {"steps": 5, "learning_rate": 0.1}}
    with Hub(environment["FOLKMOOT_URL"], environment["FOLKMOOT_TOKEN"]) as hub:
        model = hub.upload_model("quadratic", "its gradient is its weight", tmp_path / "uploaded")
        myself = str(hub._call("GET", "/api/users/myself/")["id"])
        training = hub.create_training(model, 2, aggregation_method="SCAFFOLD", clients=[myself], options=options)
        hub.start(training)
        program = [sys.executable, "-c", mine + CONTROL + PARTICIPANT]
        with subprocess.Popen(program, env=environment) as participant:
            try:
                while hub.training(training)["state"] == "O":
                    assert participant.poll() is None
                    time.sleep(0.1)
            finally:
                participant.terminate()
        hub.download_model(model, tmp_path / "trained", format="safetensors")
        hub.download_model(model, tmp_path / "state", part="state")

    # Whoever is alone is corrected by nothing; the hub has the mean of the last round's gradients.
    np.testing.assert_allclose(TensorFile.open(tmp_path / "trained")["w"], 0.9**10, rtol=1e-5)
    mean_gradient = (0.9**5 - 0.9**10) / (5 * 0.1)
    np.testing.assert_allclose(TensorFile.open(tmp_path / "state")["control_variate/w"], mean_gradient, rtol=1e-5)


def test_the_figures_can_be_drawn_and_are_small(tmp_path: Path) -> None:
    draw = [sys.executable, DOCS / "plots/aggregation.py", "--rounds", "1", "--folder", tmp_path]
    subprocess.run(draw, check=True, capture_output=True)
    drawn = {path.name for path in tmp_path.glob("*.svg")}
    assert drawn == set(re.findall(r"images/(aggregation-\w+\.svg)", PAGE))
    assert all((DOCS / "images" / name).stat().st_size < 100_000 for name in drawn)
