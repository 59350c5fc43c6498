"""How much the members of an ensemble, or the samples of a model, disagree: entropies in nats, variances in the
outputs' units.

Samples have the shape (members, rows, classes, ...), with the classes where torch's losses want them; what lies behind
(the pixels of a segmentation) counts as rows do. All is computed in float64. Equal members give a variance and mutual
information of exactly 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidValue, NonFinite
from folkmoot.uncertainty.outputs import Ending, Float64s, detected, probabilities

CLASSES = 2
"""The axis of the classes in samples."""


@dataclass(frozen=True)
class Measures:
    """`mean`, `variance` and `std` have the shape (rows, classes, ...), the others (rows, ...), in nats.

    The entropies are None where the outputs are no probabilities.
    """

    mean: Float64s
    variance: Float64s
    std: Float64s
    predictive_entropy: Float64s | None = None
    expected_entropy: Float64s | None = None
    mutual_info: Float64s | None = None


def measure(samples: npt.ArrayLike, ends_in: Ending | None = None) -> Measures:
    """All measures of `samples`, (members, rows, classes, ...), on probabilities unless they are values.

    Without `ends_in` it is `detected`. Raises NonFinite, and InvalidValue for what has no members or rows.
    """
    checked = _checked(samples)
    ending = _detected(checked) if ends_in is None else ends_in
    if ending is Ending.VALUES:
        return Measures(mean_prediction(checked), variance(checked), std(checked))
    _check_classes(checked)
    likely = probabilities(checked, ending, axis=CLASSES)
    return Measures(
        mean_prediction(likely),
        variance(likely),
        std(likely),
        predictive_entropy(likely),
        expected_entropy(likely),
        mutual_info(likely),
    )


def mean_prediction(samples: npt.ArrayLike) -> Float64s:
    """The mean over members, (rows, ...).

    Source: Lakshminarayanan et al. 2017, section 2.4, https://arxiv.org/abs/1612.01474
    """
    return _mean_of_members(_checked(samples))


def variance(samples: npt.ArrayLike) -> Float64s:
    """The members' unbiased variance, divided by one less than there are, (rows, ...); of a single member 0.

    In squared units of the outputs. It is what the model does not know (epistemic), without the noise of the
    data. Source: Gal & Ghahramani 2016, section 4, https://arxiv.org/abs/1506.02142
    """
    checked = _checked(samples)
    squares = ((checked - _mean_of_members(checked)) ** 2).sum(axis=0)
    return np.asarray(squares / max(len(checked) - 1, 1))


def std(samples: npt.ArrayLike) -> Float64s:
    """The square root of `variance`, in the outputs' units, (rows, ...). Source: as there."""
    return np.sqrt(variance(samples))


def predictive_entropy(likely: npt.ArrayLike) -> Float64s:
    """The entropy of the members' mean distribution: total uncertainty, 0 to log(classes) nats, (rows, ...).

    `likely` are probabilities, (members, rows, classes, ...). Source: Shannon 1948; Gal 2016, Uncertainty in deep
    learning, section 3.3.1.
    """
    checked = _checked_distributions(likely)
    mean = np.clip(_mean_of_members(checked), 0, 1)
    return np.minimum(_entropies(mean, axis=CLASSES - 1), math.log(checked.shape[CLASSES]))


def expected_entropy(likely: npt.ArrayLike) -> Float64s:
    """The mean of the members' entropies: what the data leave open (aleatoric), 0 to log(classes) nats, (rows, ...).

    `likely` are probabilities, (members, rows, classes, ...). Source: Depeweg et al. 2018, section 3,
    https://arxiv.org/abs/1710.07283
    """
    checked = _checked_distributions(likely)
    mean = _mean_of_members(_entropies(checked, axis=CLASSES))
    return np.clip(mean, 0, math.log(checked.shape[CLASSES]))


def mutual_info(likely: npt.ArrayLike) -> Float64s:
    """What knowing the right member would tell of the class: predictive less expected entropy (epistemic),
    in nats, (rows, ...), from 0 to the predictive entropy; rounding below 0 is cut off.

    `likely` are probabilities, (members, rows, classes, ...). Source: Houlsby et al. 2011, equation 2 (BALD),
    https://arxiv.org/abs/1112.5745
    """
    return np.maximum(predictive_entropy(likely) - expected_entropy(likely), 0)


def _checked(samples: npt.ArrayLike) -> Float64s:
    checked = np.asarray(samples, dtype=np.float64)
    if checked.ndim < 2 or 0 in checked.shape:
        raise InvalidValue(f"samples have the shape {checked.shape}; expected (members, rows, ...), none of them 0")
    return checked


def _checked_distributions(likely: npt.ArrayLike) -> Float64s:
    checked = _checked(likely)
    _check_classes(checked)
    if not ((checked >= 0) & (checked <= 1)).all():
        raise InvalidValue("samples: a probability lies outside 0 to 1")
    return checked


def _check_classes(samples: Float64s) -> None:
    if samples.ndim <= CLASSES:
        raise InvalidValue(f"samples have the shape {samples.shape}; expected (members, rows, classes, ...)")


def _detected(samples: Float64s) -> Ending:
    return detected(samples, axis=CLASSES) if samples.ndim > CLASSES else Ending.VALUES


def _mean_of_members(samples: Float64s) -> Float64s:
    """Of differences to the first, so that the mean of equals is that very number."""
    if not np.isfinite(samples).all():
        raise NonFinite("samples hold NaN or infinity")
    return np.asarray(samples[0] + (samples - samples[0]).mean(axis=0))


def _entropies(likely: Float64s, axis: int) -> Float64s:
    """-p log p, which is 0 at 0."""
    logarithms = np.log(likely, out=np.zeros_like(likely), where=likely > 0)
    return np.asarray(-(likely * logarithms).sum(axis=axis) + 0.0)
