"""Probabilities, however a model ends: with a softmax, a log-softmax, or neither.

Outputs have the shape (..., rows, classes), or with `axis` the classes elsewhere. All is computed in float64.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidValue, NonFinite

Float64s = npt.NDArray[np.float64]

TOLERANCE = 1e-3
"""How far from 1 the sum of detected probabilities may be: float16 is that rough."""
FLOOR = float(np.log(np.finfo(np.float32).tiny))
"""The least logarithm of a probability (nats, about -87.3): a 0 that float32 has rounded is no certainty."""


class Ending(StrEnum):
    """What a model's outputs are."""

    PROBABILITIES = "probabilities"
    LOG_PROBABILITIES = "log_probabilities"
    LOGITS = "logits"
    VALUES = "values"
    """No classes: those of a regression."""


def detected(outputs: npt.ArrayLike, *, axis: int = -1) -> Ending:
    """What `outputs` look like: probabilities where none is negative and every row sums to 1, log-probabilities
    where none is positive and the exponentials of every row do, both within `TOLERANCE`; else logits.

    Fewer than two classes are values. A regression with several targets cannot be told from logits: declare it.
    """
    checked = _checked(outputs)
    if checked.ndim < 2 or checked.shape[axis] < 2:
        return Ending.VALUES
    if (checked >= 0).all() and _sum_to_one(checked, axis):
        return Ending.PROBABILITIES
    if (checked <= 0).all() and _sum_to_one(np.exp(checked), axis):
        return Ending.LOG_PROBABILITIES
    return Ending.LOGITS


def probabilities(outputs: npt.ArrayLike, ends_in: Ending | None = None, *, axis: int = -1) -> Float64s:
    """The distribution over classes that each row of `outputs` stands for; the shape stays.

    Without `ends_in` it is `detected`. Rows sum to 1 within rounding; 0 and 1 stay exactly what they are. A
    logit of minus infinity is a probability of 0. Raises NonFinite, and InvalidValue for what is no distribution.
    Source: Bridle 1990, Training stochastic model recognition algorithms as networks (the softmax).
    """
    checked = _distributions(outputs, ends_in, axis)
    if _ending(checked, ends_in, axis) is Ending.PROBABILITIES:
        return _normalised(checked, axis)
    return _normalised(np.exp(checked - _peaks(checked, axis)), axis)


def log_probabilities(outputs: npt.ArrayLike, ends_in: Ending | None = None, *, axis: int = -1) -> Float64s:
    """The logarithms of `probabilities` (nats), none under `FLOOR`; exact where the model ends before its softmax."""
    checked = _distributions(outputs, ends_in, axis)
    if _ending(checked, ends_in, axis) is Ending.PROBABILITIES:
        with np.errstate(divide="ignore"):
            return np.maximum(np.log(_normalised(checked, axis)), FLOOR)
    shifted = checked - _peaks(checked, axis)
    return np.asarray(np.maximum(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)), FLOOR))


def _checked(outputs: npt.ArrayLike) -> Float64s:
    checked = np.asarray(outputs, dtype=np.float64)
    if np.isnan(checked).any() or np.isposinf(checked).any():
        raise NonFinite("outputs hold NaN or infinity")
    return checked


def _distributions(outputs: npt.ArrayLike, ends_in: Ending | None, axis: int) -> Float64s:
    checked = _checked(outputs)
    if ends_in is Ending.VALUES:
        raise InvalidValue("outputs: values of a regression are no distribution over classes")
    if checked.ndim < 2 or checked.shape[axis] < 2:
        raise InvalidValue(f"outputs have the shape {checked.shape}; expected two classes or more")
    return checked


def _ending(checked: Float64s, ends_in: Ending | None, axis: int) -> Ending:
    if ends_in is Ending.PROBABILITIES and not ((checked >= 0).all() and _sum_to_one(checked, axis)):
        raise InvalidValue("outputs are said to be probabilities; a row is negative somewhere or does not sum to 1")
    return detected(checked, axis=axis) if ends_in is None else ends_in


def _sum_to_one(checked: Float64s, axis: int) -> bool:
    return bool((np.abs(checked.sum(axis=axis) - 1) <= TOLERANCE).all())


def _normalised(weights: Float64s, axis: int) -> Float64s:
    normalised: Float64s = weights / weights.sum(axis=axis, keepdims=True)
    return normalised


def _peaks(checked: Float64s, axis: int) -> Float64s:
    peaks: Float64s = checked.max(axis=axis, keepdims=True)
    if np.isneginf(peaks).any():
        raise NonFinite("outputs: a row is minus infinity throughout")
    return peaks
