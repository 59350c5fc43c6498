from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folkmoot.aggregation import Report, Strategy, Update, aggregate_files, find_strategy, layout_of
from folkmoot.tensors import TensorFile, Tensors, write_tensors


class Round:
    """A starting model and updates as files in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = folder / "base"
        self.output = folder / "output"
        self.state: Path | None = None
        self.updates: list[Update] = []
        self.tensors: list[Tensors] = []

    def begin_with(self, tensors: Tensors) -> None:
        write_tensors(self.base, tensors)

    def receive(self, tensors: Tensors, num_examples: int = 1, id: str | None = None, **more: Any) -> Update:  # noqa: A002
        path = self.folder / f"update{len(self.updates)}"
        write_tensors(path, tensors)
        update = Update(id or f"{len(self.updates):05}", path, num_examples, **more)
        self.updates.append(update)
        self.tensors.append(tensors)
        return update

    def aggregate(self, strategy: Strategy, updates: list[Update] | None = None, **options: Any) -> Report:
        if strategy.keeps_state:
            options = {"state": self.state, "state_output": self.folder / "next state", **options}
        return aggregate_files(strategy, self.base, updates or self.updates, self.output, **options)

    def result(self, strategy: Strategy, **options: Any) -> dict[str, np.ndarray]:
        self.aggregate(strategy, **options)
        return dict(TensorFile.open(self.output))

    def go_on(self) -> None:
        """What came out is what the next round begins with."""
        self.output.replace(self.base)
        if (self.folder / "next state").exists():
            self.state = (self.folder / "next state").replace(self.folder / "state")
        self.updates, self.tensors = [], []

    def left_behind(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {"base"} - {update.path.name for update in self.updates}


@pytest.fixture
def a_round(tmp_path):
    return Round(tmp_path)


NEEDED = {
    "Bulyan": {"num_byzantine": 1},
    "CenteredClipping": {"radius": 1e9},
    "FedBuff": {"buffer_size": 7},
    "Krum": {"num_byzantine": 1},
    "MultiKrum": {"num_byzantine": 1},
}


@pytest.fixture
def strategy_named():
    """Make the strategy of that name, with the options that it cannot do without."""

    def make(name: str, **options: Any) -> Strategy:
        return find_strategy(name, NEEDED.get(name, {}) | options)

    return make


@pytest.fixture
def for_strategy():
    """Give the updates of a round what the strategy wants to know of them, beside the model's tensors."""

    def give(a_round: Round, strategy: Strategy, change: float = 0.0) -> None:
        wanted = layout_of(strategy, TensorFile.open(a_round.base).schema).update
        for number, (update, tensors) in enumerate(zip(a_round.updates, a_round.tensors, strict=True)):
            a_round.updates[number] = replace(update, metrics={"local_steps": 4, "loss": 0.5, **update.metrics})
            more = {spec.name: spec for spec in wanted if spec.name not in tensors}
            if more:
                controls = {name: np.full(spec.shape, change, spec.numpy_dtype) for name, spec in more.items()}
                write_tensors(update.path, {**tensors, **controls})

    return give
