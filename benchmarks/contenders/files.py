"""The files that are merged: a model, and updates of it that differ as those of real participants do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from folkmoot.tensors import TensorFile, write_tensors
from folkmoot.tensors.checksums import block_checksums


@dataclass(frozen=True)
class Files:
    base: Path
    updates: list[Path]
    output: Path

    @property
    def num_bytes(self) -> int:
        """Of all updates together."""
        return sum(path.stat().st_size for path in self.updates)


def make_files(folder: Path, num_updates: int, num_parameters: int) -> Files:
    """Write a model and its updates, durably; beside each update lie the checksums of its blocks."""
    folder.mkdir()
    random = np.random.default_rng(0)
    model, noise = random.standard_normal((2, num_parameters), dtype=np.float32)
    files = Files(folder / "base", [folder / f"{number:05}" for number in range(num_updates)], folder / "output")
    write(files.base, model)
    for path in files.updates:
        # Turned by another distance for each one: quicker than fresh noise, and no update is always the largest.
        write(path, model + np.roll(noise, random.integers(num_parameters)))
        path.with_suffix(".checksums").write_bytes(block_checksums(TensorFile.open(path).data))
    return files


def write(path: Path, values: npt.NDArray[np.float32]) -> None:
    first, second = len(values) // 2, len(values) * 9 // 10
    write_tensors(path, {"a": values[:first], "b": values[first:second], "c": values[second:]})
