"""Whether a classifier is right as often as it says: a reliability diagram, and the error that sums it up."""

from __future__ import annotations

from dataclasses import dataclass

from folkmoot.uncertainty.bins import CONFIDENCE_EDGES
from folkmoot.uncertainty.calibration import ClassStatistics


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose confidence lies above `lower`, up to `upper`; `confidence` and `accuracy` are their means, 0 to 1."""

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


def reliability_bins(statistics: ClassStatistics) -> list[ReliabilityBin]:
    """A reliability diagram's bars, those without rows left out. Source: DeGroot & Fienberg 1983; Guo et al. 2017,
    section 2, https://arxiv.org/abs/1706.04599
    """
    columns = (CONFIDENCE_EDGES[:-1], CONFIDENCE_EDGES[1:])
    sums = (statistics.bin_counts, statistics.bin_confidences, statistics.bin_correct)
    return [
        ReliabilityBin(lower, upper, count, confidences / count, correct / count)
        for lower, upper, count, confidences, correct in zip(*columns, *sums, strict=True)
        if count
    ]


def expected_calibration_error(statistics: ClassStatistics) -> float:
    """How far accuracy and confidence are apart, in the mean over rows, 0 to 1. Source: Guo et al. 2017, section 2,
    https://arxiv.org/abs/1706.04599
    """
    gaps = (each.count * abs(each.accuracy - each.confidence) for each in reliability_bins(statistics))
    return sum(gaps) / statistics.rows
