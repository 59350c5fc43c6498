from __future__ import annotations

from pathlib import Path

import pytest

from folkmoot.aggregation import Update
from folkmoot.tensors import Tensors, write_tensors


class Round:
    """A starting model and updates as files in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = folder / "base"
        self.output = folder / "output"
        self.updates: list[Update] = []
        self.tensors: list[Tensors] = []

    def begin_with(self, tensors: Tensors) -> None:
        write_tensors(self.base, tensors)

    def receive(self, tensors: Tensors, num_examples: int = 1, id: str | None = None) -> Update:  # noqa: A002
        path = self.folder / f"update{len(self.updates)}"
        write_tensors(path, tensors)
        update = Update(id or f"{len(self.updates):05}", path, num_examples)
        self.updates.append(update)
        self.tensors.append(tensors)
        return update

    def left_behind(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {"base"} - {update.path.name for update in self.updates}


@pytest.fixture
def a_round(tmp_path):
    return Round(tmp_path)
