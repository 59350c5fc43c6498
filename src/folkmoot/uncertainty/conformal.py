"""Sets and intervals that hold the truth as often as is asked, whatever the model is worth: split conformal prediction,
from scores that participants have counted.

The promise is for new rows like the counted ones (exchangeable), in the mean over rows, not for each class or
participant. Sources: Vovk et al. 2005, Algorithmic learning in a random world; Lei et al. 2018,
https://arxiv.org/abs/1604.04173; Lu et al. 2023, https://arxiv.org/abs/2305.17564 (federated).
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidValue
from folkmoot.uncertainty.bins import RESIDUAL_EDGES, SCORE_EDGES, upper_edge
from folkmoot.uncertainty.calibration import ClassStatistics, Statistics
from folkmoot.uncertainty.outputs import Float64s


def threshold(statistics: Statistics, coverage: float, *, participants: int = 1) -> float:
    """The largest score that still conforms, so that a part of at least `coverage` of new rows does.

    It is the upper edge of the bin with the ceil((rows + participants) * coverage)-th smallest score: never too small.
    With `participants=1`, all rows count as drawn alike; given the number whose statistics were merged, the promise
    is for a row of a participant drawn in proportion to its rows + 1, however the participants differ.
    Raises InvalidValue with the number of rows that are needed where there are too few. Sources: Vovk et al. 2005;
    Lei et al. 2018, Algorithm 2, https://arxiv.org/abs/1604.04173; Lu et al. 2023, section 4,
    https://arxiv.org/abs/2305.17564
    """
    if not 0 < coverage < 1:
        raise InvalidValue(f"coverage is {coverage}; expected a number between 0 and 1")
    if participants < 1:
        raise InvalidValue(f"participants is {participants}; expected at least 1")
    exactly = Fraction(str(float(coverage)))  # 0.7 as it is written: 10 * 0.7 is 7
    rank = math.ceil((statistics.rows + participants) * exactly)
    if rank > statistics.rows:
        needed = math.ceil(participants * exactly / (1 - exactly))
        raise InvalidValue(f"coverage {coverage} takes {needed} scores or more; there are {statistics.rows}")
    if isinstance(statistics, ClassStatistics):
        return upper_edge(statistics.score_counts, SCORE_EDGES, rank)
    edge = upper_edge(statistics.residual_counts, RESIDUAL_EDGES, rank)
    if math.isinf(edge):
        raise InvalidValue(
            f"coverage {coverage}: residuals above {RESIDUAL_EDGES[-2]:g} are not told apart; scale targets"
        )
    return edge


def prediction_set(likely: npt.ArrayLike, threshold: float) -> npt.NDArray[np.bool_]:
    """For each class whether it may be the right one, of the probabilities' shape, (rows, classes).

    Where no class is as likely as right ones use to be, a row's set is empty. The threshold is of `ClassStatistics`.
    Source: Sadinle et al. 2019, https://arxiv.org/abs/1609.00451; Vovk et al. 2005.
    """
    return np.asarray(1 - np.asarray(likely, dtype=np.float64) <= threshold)


def prediction_interval(predictions: npt.ArrayLike, threshold: float) -> tuple[Float64s, Float64s]:
    """The lower and upper ends around predictions, in their shape and units; of several targets all lie within at once.

    The threshold is that of `RegressionStatistics`. Source: Lei et al. 2018, Algorithm 2,
    https://arxiv.org/abs/1604.04173
    """
    middle = np.asarray(predictions, dtype=np.float64)
    return middle - threshold, middle + threshold
