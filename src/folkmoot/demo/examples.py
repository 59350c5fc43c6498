"""Labelled images, and the file in which a participant finds its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

NUM_PIXELS = 64
NUM_LABELS = 10


@dataclass(frozen=True)
class Examples:
    """`images`: float32 in 0..1, one row of pixels each; `labels`: int64, one digit each."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.int64]) -> Examples:
        return Examples(self.images[rows], self.labels[rows])

    def save(self, path: Path) -> None:
        np.savez(path, images=self.images, labels=self.labels)

    @classmethod
    def load(cls, path: Path) -> Examples:
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["images"], arrays["labels"])
