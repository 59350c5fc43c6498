"""One number that makes a classifier as confident as it is right. Source: Guo et al. 2017, section 4.2,
https://arxiv.org/abs/1706.04599
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidValue
from folkmoot.uncertainty.calibration import TEMPERATURES, ClassStatistics
from folkmoot.uncertainty.outputs import Ending, Float64s, log_probabilities, probabilities


def federated_temperature(statistics: ClassStatistics) -> float:
    """The temperature of the least log loss over all rows, above 1 for a model that is too sure of itself.

    Of the grid, refined by a parabola through the best point and its neighbours, over log(temperature); at an end of
    the grid, that end. Source: Guo et al. 2017, section 4.2, https://arxiv.org/abs/1706.04599, there without a grid.
    """
    losses = statistics.log_losses
    best = min(range(len(losses)), key=losses.__getitem__)
    if best in (0, len(losses) - 1):
        return TEMPERATURES[best]
    before, least, after = losses[best - 1 : best + 2]
    curvature = before - 2 * least + after
    step = math.log(TEMPERATURES[best + 1] / TEMPERATURES[best])
    offset = (before - after) / (2 * curvature) if curvature > 0 else 0.0
    return TEMPERATURES[best] * math.exp(offset * step)


def temperature_scaled(outputs: npt.ArrayLike, temperature: float, ends_in: Ending | None = None) -> Float64s:
    """Probabilities of (..., rows, classes), however the model ends, at another temperature; their order stays.

    Source: Guo et al. 2017, section 4.2, https://arxiv.org/abs/1706.04599
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise InvalidValue(f"temperature is {temperature}; expected a finite number above 0")
    likely, logarithms = probabilities(outputs, ends_in), log_probabilities(outputs, ends_in)
    # What is impossible stays so; the logarithms have a floor.
    return np.where(likely > 0, probabilities(logarithms / temperature, Ending.LOGITS), 0.0)
