"""What a participant may send of how well the model does on its data: counts and sums, never a row.

Statistics of several participants merge by addition, and are then exactly those of all their rows together; sums of
numbers that are not whole, but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidValue, NonFinite
from folkmoot.uncertainty.bins import CONFIDENCE_EDGES, RESIDUAL_EDGES, SCORE_EDGES, bins_of, counts_of
from folkmoot.uncertainty.outputs import FLOOR, Ending, Float64s, log_probabilities, probabilities

TEMPERATURES = tuple(float(f"{10 ** (k / 40):.6g}") for k in range(-40, 41))
"""The server's grid: 81 temperatures from 0.1 to 10, each 6 % above the one before; the middle one is 1."""
_MAX_LOG_CLASSES = 32.0
_ROUNDING = 1e-6
_UNSCALED = TEMPERATURES.index(1)


@dataclass(frozen=True)
class ClassStatistics:
    """Of a classifier on some rows. Sources: Guo et al. 2017, https://arxiv.org/abs/1706.04599 (bins, temperature);
    Sadinle et al. 2019, https://arxiv.org/abs/1609.00451 (the score: 1 less how likely the right class was held).
    """

    TASK: ClassVar[str] = "classes"
    LENGTHS: ClassVar[dict[str, int]] = {
        "bin_counts": len(CONFIDENCE_EDGES) - 1,
        "bin_correct": len(CONFIDENCE_EDGES) - 1,
        "bin_confidences": len(CONFIDENCE_EDGES) - 1,
        "log_losses": len(TEMPERATURES),
        "scaled_gaps": len(TEMPERATURES) * (len(CONFIDENCE_EDGES) - 1),
        "score_counts": len(SCORE_EDGES) - 1,
    }

    bin_counts: tuple[int, ...]
    """Rows whose predicted class is as likely as each of `CONFIDENCE_EDGES`'s bins says."""
    bin_correct: tuple[int, ...]
    """How many of these are predicted right."""
    bin_confidences: tuple[float, ...]
    """The sum of how likely these rows' predicted classes are."""
    log_losses: tuple[float, ...]
    """The sum of the negative log likelihood (nats) at each of `TEMPERATURES`."""
    scaled_gaps: tuple[float, ...]
    """At each of `TEMPERATURES`, of the rows in each of `CONFIDENCE_EDGES`'s bins: how many are predicted right, less
    the sum of how likely their predicted classes are."""
    score_counts: tuple[int, ...]
    """Rows with a score in each of `SCORE_EDGES`'s bins."""

    @property
    def rows(self) -> int:
        return sum(self.bin_counts)

    @classmethod
    def of(cls, outputs: npt.ArrayLike, labels: npt.ArrayLike, ends_in: Ending | None = None) -> Self:
        """Of `outputs` of shape (rows, classes), however the model ends, and whole numbers as `labels`, (rows,).

        No logarithm of a probability counts as less than `FLOOR` nats. Raises InvalidValue, NonFinite.
        """
        likely, logarithms = probabilities(outputs, ends_in), log_probabilities(outputs, ends_in)
        right = _checked_labels(labels, likely)
        rows = np.arange(len(right))
        confidence, is_right = likely.max(axis=1), likely.argmax(axis=1) == right
        bins, count = bins_of(confidence, CONFIDENCE_EDGES), len(CONFIDENCE_EDGES) - 1
        losses, confidences = zip(*(_at(each, logarithms, right) for each in TEMPERATURES), strict=True)
        # As the model has it where nothing is scaled: rounding could move a row that lies on an edge.
        scaled = (*confidences[:_UNSCALED], confidence, *confidences[_UNSCALED + 1 :])
        return cls(
            bin_counts=tuple(np.bincount(bins, minlength=count).tolist()),
            bin_correct=tuple(np.bincount(bins[is_right], minlength=count).tolist()),
            bin_confidences=tuple(np.bincount(bins, weights=confidence, minlength=count).tolist()),
            log_losses=losses,
            scaled_gaps=tuple(gap for each in scaled for gap in _gaps(each, is_right)),
            score_counts=counts_of(1 - likely[rows, right], SCORE_EDGES),
        )

    def check(self) -> None:
        """Raises InvalidValue, naming the field, for what no rows can have given."""
        if sum(self.score_counts) != self.rows:
            raise InvalidValue(f"score_counts count {sum(self.score_counts)} rows, bin_counts {self.rows}")
        for k, (lower, upper) in enumerate(pairwise(CONFIDENCE_EDGES)):
            count, correct, confidence = self.bin_counts[k], self.bin_correct[k], self.bin_confidences[k]
            if correct > count:
                raise InvalidValue(f"bin_correct[{k}] is {correct}, of {count} rows")
            if not _between(lower * count, confidence, upper * count):
                raise InvalidValue(f"bin_confidences[{k}] is {confidence}, of {count} rows between {lower} and {upper}")
        for k, (loss, temperature) in enumerate(zip(self.log_losses, TEMPERATURES, strict=True)):
            if not _between(0, loss, self.rows * (-FLOOR / temperature + _MAX_LOG_CLASSES)):
                raise InvalidValue(f"log_losses[{k}] is {loss}, which is impossible for {self.rows} rows")
            if math.fsum(map(abs, self.gaps_at(k))) > self.rows * (1 + _ROUNDING):
                raise InvalidValue(f"scaled_gaps at temperature {temperature} are too large for {self.rows} rows")
        unscaled = zip(self.gaps_at(_UNSCALED), self.bin_correct, self.bin_confidences, strict=True)
        if any(abs(gap - (correct - confidence)) > self.rows * _ROUNDING for gap, correct, confidence in unscaled):
            raise InvalidValue("scaled_gaps at temperature 1 are not bin_correct less bin_confidences")

    def gaps_at(self, index: int) -> tuple[float, ...]:
        """The bins' gaps at that one of `TEMPERATURES`."""
        count = len(CONFIDENCE_EDGES) - 1
        return self.scaled_gaps[index * count : (index + 1) * count]


@dataclass(frozen=True)
class RegressionStatistics:
    """Of a regression on some rows. Source: Lei et al. 2018, Algorithm 2, https://arxiv.org/abs/1604.04173 (the score:
    the absolute residual).
    """

    TASK: ClassVar[str] = "regression"
    LENGTHS: ClassVar[dict[str, int]] = {"residual_counts": len(RESIDUAL_EDGES) - 1}

    residual_counts: tuple[int, ...]
    """Rows with an absolute residual, of several targets the largest, in each of `RESIDUAL_EDGES`'s bins."""

    @property
    def rows(self) -> int:
        return sum(self.residual_counts)

    @classmethod
    def of(cls, predictions: npt.ArrayLike, targets: npt.ArrayLike) -> Self:
        """Of predictions and targets of the same shape, (rows,) or (rows, targets); raises InvalidValue, NonFinite."""
        predicted, right = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
        if predicted.shape != right.shape or predicted.ndim not in (1, 2) or 0 in predicted.shape:
            raise InvalidValue(f"targets have the shape {right.shape}, predictions {predicted.shape}")
        if not (np.isfinite(predicted).all() and np.isfinite(right).all()):
            raise NonFinite("predictions or targets hold NaN or infinity")
        residuals = np.abs(predicted - right).reshape(len(right), -1).max(axis=1)
        return cls(counts_of(residuals, RESIDUAL_EDGES))

    def check(self) -> None:
        """Any counts are possible."""


Statistics = ClassStatistics | RegressionStatistics
AnyStatistics = TypeVar("AnyStatistics", bound=ClassStatistics | RegressionStatistics)


def merged(statistics: Sequence[AnyStatistics]) -> AnyStatistics:
    """Those of all rows together, in whatever order they come; raises InvalidValue for none, or for different tasks."""
    if not statistics:
        raise InvalidValue("statistics: there are none to merge")
    kind = type(statistics[0])
    if any(type(each) is not kind for each in statistics):
        raise InvalidValue("task: statistics of classes and of a regression cannot be merged")
    return kind(**{field.name: _sums([getattr(each, field.name) for each in statistics]) for field in fields(kind)})


def _sums(several: Sequence[Sequence[float]]) -> tuple[Any, ...]:
    # fsum: the sum does not depend on the order of arrival. Counts have no limit and are added as they are.
    return tuple(sum(each) if isinstance(each[0], int) else math.fsum(each) for each in zip(*several, strict=True))


def _at(temperature: float, logarithms: Float64s, labels: npt.NDArray[np.int64]) -> tuple[float, Float64s]:
    """The log loss in nats, and how likely each predicted class is; of shape (rows, classes) and (rows,)."""
    scaled = logarithms / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    # The predicted class has the logarithm 0 now.
    normalizers = np.log(np.exp(scaled).sum(axis=1))
    return math.fsum(normalizers - scaled[np.arange(len(labels)), labels]), np.exp(-normalizers)


def _gaps(confidence: Float64s, is_right: npt.NDArray[np.bool_]) -> list[float]:
    bins = bins_of(confidence, CONFIDENCE_EDGES)
    return list(np.bincount(bins, weights=is_right - confidence, minlength=len(CONFIDENCE_EDGES) - 1).tolist())


def _checked_labels(labels: npt.ArrayLike, likely: Float64s) -> npt.NDArray[np.int64]:
    given = np.asarray(labels)
    if likely.ndim != 2 or not len(likely):
        raise InvalidValue(f"outputs have the shape {likely.shape}; expected (rows, classes)")
    if given.shape != likely.shape[:1]:
        raise InvalidValue(f"labels have the shape {given.shape}; outputs have {len(likely)} rows")
    if not np.issubdtype(given.dtype, np.integer) or given.min() < 0 or given.max() >= likely.shape[1]:
        raise InvalidValue(f"labels: expected whole numbers from 0 to {likely.shape[1] - 1}")
    return given.astype(np.int64)


def _between(lower: float, value: float, upper: float) -> bool:
    return lower * (1 - _ROUNDING) <= value <= upper * (1 + _ROUNDING)
