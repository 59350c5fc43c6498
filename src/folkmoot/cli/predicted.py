"""Predictions as people read them, row by row, and as programs do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

Array = npt.NDArray[Any]
Uncertainty = Mapping[str, Array]

# Short, so that all fits into 80 columns.
TITLES = {"predictive_entropy": "entropy", "mutual_info": "mutual info"}
BAR_WIDTH = 12
MOST_NUMBERS = 8
"""So many numbers of one row are shown; what has more is for programs."""
_CLASSES = 1
"""The axis of the classes."""


@dataclass(frozen=True)
class Predicted:
    """Either `classes`, with `probabilities` where they are known, or the `values` of a regression.

    `uncertainty` has the measures by their names: the shapes are those of `folkmoot.uncertainty.Measures`.
    """

    uncertainty: Uncertainty
    classes: Array | None = None
    probabilities: Array | None = None
    values: Array | None = None

    @classmethod
    def of_mean(cls, mean: Array, uncertainty: Uncertainty, *, are_probabilities: bool) -> Predicted:
        if are_probabilities:
            return cls(uncertainty, classes=mean.argmax(axis=_CLASSES), probabilities=mean)
        return cls(uncertainty, values=mean)

    def as_json(self) -> dict[str, Any]:
        """What there is, as nested lists."""
        named = {"classes": self.classes, "probabilities": self.probabilities, "values": self.values}
        found = {name: array.tolist() for name, array in named.items() if array is not None}
        return {**found, "uncertainty": {name: array.tolist() for name, array in self.uncertainty.items()}}

    def print(self) -> None:
        in_nats = any(name in self.uncertainty for name in TITLES)
        caption = "Entropy and mutual information in nats." if in_nats else None
        table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
        rows = list(self._value_rows() if self.classes is None else self._class_rows())
        for column in rows[0]:
            table.add_column(column, justify="left" if column in ("", "prediction") else "right", no_wrap=True)
        for number, row in enumerate(rows):
            table.add_row(*({**row, "row": str(number)}.values()))
        Console(markup=False, emoji=False, highlight=False).print(table)

    def _value_rows(self) -> Iterator[dict[str, RenderableType]]:
        for number, values in enumerate(np.atleast_1d(np.asarray(self.values))):
            spread = {"std": _numbers(self.uncertainty["std"][number])} if "std" in self.uncertainty else {}
            yield {"row": "", "prediction": _numbers(values), **spread}

    def _class_rows(self) -> Iterator[dict[str, RenderableType]]:
        for number, found in enumerate(np.asarray(self.classes)):
            row: dict[str, RenderableType] = {"row": "", "class": _numbers(found)}
            yield row if found.ndim else row | self._likely(number, int(found)) | self._measured(number, int(found))

    def _likely(self, number: int, best: int) -> dict[str, RenderableType]:
        if self.probabilities is None:
            return {}
        each = self.probabilities[number]
        second = int(np.argsort(each)[-2])
        bar = ProgressBar(total=1, completed=float(each[best]), width=BAR_WIDTH)
        return {"": bar, "probability": f"{each[best]:.1%}", "next": f"{second}: {each[second]:.1%}"}

    def _measured(self, number: int, best: int) -> dict[str, RenderableType]:
        if not self.uncertainty:
            return {}
        measured = {title: self.uncertainty[name][number] for name, title in TITLES.items() if name in self.uncertainty}
        spread = {"std": self.uncertainty["std"][number][best]}
        return {title: f"{value:.3f}" for title, value in {**spread, **measured}.items()}


def _numbers(array: Array) -> str:
    if array.size > MOST_NUMBERS:
        return f"{' x '.join(map(str, array.shape))} numbers: see --json"
    return " ".join(f"{number:.6g}" for number in array.ravel())
