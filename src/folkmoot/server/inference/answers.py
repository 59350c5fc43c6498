"""What the outputs of a model's members say: a prediction, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidInput, ModelFailed
from folkmoot.server.inference.plans import Plan
from folkmoot.uncertainty import Ending, Measures, detected, measure

Array = npt.NDArray[Any]
_CLASSES = 1
"""The axis of the classes in one member's outputs."""
_MEASURES = ("variance", "std", "predictive_entropy", "expected_entropy", "mutual_info")


@dataclass(frozen=True)
class Answer:
    """`uncertainty` has what could be measured, in the outputs' units or nats, as uncertainty/ has it.

    `prediction_set` is there if it was asked for: as `sets.set_of` makes it.
    """

    inference: Array
    uncertainty: dict[str, Array] = field(default_factory=dict)
    prediction_set: Array | None = None


def answer_of(samples: Array, plan: Plan) -> Answer:
    """From outputs of shape (members, rows, ...); numbers are as wide as the model's.

    NONE: the most likely class of each row, or the outputs themselves where there are fewer than two; the others: the
    mean, of probabilities where the outputs are any, with its uncertainty. Raises ModelFailed for what is no number.
    """
    if np.isnan(samples).any() or np.isposinf(samples).any():
        raise ModelFailed("the model answered with NaN or infinity")
    if plan.method == "NONE":
        return Answer(_decided(samples[0]))
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            measures = measure(samples, ending_of(samples, plan.softmax))
    except InvalidInput as error:
        raise ModelFailed(f"the model's outputs cannot be measured: {error.message}") from error
    return _answer(measures, samples.dtype)


def _decided(outputs: Array) -> Array:
    if outputs.ndim > _CLASSES and outputs.shape[_CLASSES] > 1:
        return outputs.argmax(axis=_CLASSES)
    if not np.isfinite(outputs).all():
        raise ModelFailed("the model answered with infinity")
    return outputs


def ending_of(samples: Array, softmax: bool | None) -> Ending | None:
    """What the training declares: `true`, that a softmax has to be added; `false`, that none is."""
    if softmax is None or samples.ndim <= _CLASSES + 1:
        return None
    if softmax:
        return Ending.LOGITS
    found = detected(samples, axis=_CLASSES + 1)
    return Ending.VALUES if found is Ending.LOGITS else found


def narrowed(values: Array, dtype: np.dtype[Any], name: str) -> Array:
    """As wide as the model's numbers; raises ModelFailed where `values` are infinite, or become so."""
    with np.errstate(over="ignore"):
        narrow = np.asarray(values, dtype)
    if not np.isfinite(narrow).all():
        raise ModelFailed(f"the {name} of the model's outputs is no finite {dtype}")
    return narrow


def _answer(measures: Measures, dtype: np.dtype[Any]) -> Answer:
    found = {name: value for name in _MEASURES if (value := getattr(measures, name)) is not None}
    uncertainty = {name: narrowed(value, dtype, name) for name, value in found.items()}
    return Answer(narrowed(measures.mean, dtype, "mean"), uncertainty)
