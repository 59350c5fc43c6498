"""Whether a classifier is right as often as it says: a reliability diagram, and the error that sums it up."""

from __future__ import annotations

import math
from dataclasses import dataclass

from folkmoot.uncertainty.bins import CONFIDENCE_EDGES
from folkmoot.uncertainty.calibration import TEMPERATURES, ClassStatistics


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


def expected_calibration_error(statistics: ClassStatistics, temperature: float = 1) -> float:
    """How far accuracy and confidence are apart, in the mean over rows, 0 to 1: at the temperature of `TEMPERATURES`
    that is nearest. Source: Guo et al. 2017, section 2, https://arxiv.org/abs/1706.04599
    """
    nearest = min(range(len(TEMPERATURES)), key=lambda k: abs(math.log(TEMPERATURES[k] / temperature)))
    return math.fsum(map(abs, statistics.gaps_at(nearest))) / statistics.rows
