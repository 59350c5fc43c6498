"""Prediction sets and intervals with a stated coverage, from what participants have counted of the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from folkmoot.errors import InvalidInput, InvalidValue, ModelFailed, NotFound
from folkmoot.server.accounts.models import User
from folkmoot.server.inference.answers import Array, ending_of, narrowed
from folkmoot.server.inference.plans import Plan
from folkmoot.server.registry.models import Model
from folkmoot.server.trainings.calibration import shown_calibration
from folkmoot.server.trainings.models import Update
from folkmoot.uncertainty import ClassStatistics, prediction_interval, prediction_set, probabilities, threshold


@dataclass(frozen=True)
class Limit:
    """The largest score that still conforms: of classes, or of residuals."""

    threshold: float
    is_of_classes: bool


def limit_for(model: Model | Update, coverage: float, *, round: int | None, asked_by: User) -> Limit:
    """Of the checkpoint after `round` rounds, or the latest; raises InvalidValue where too little was counted.

    What only one participant has counted is for those alone who may see it: thresholds would tell all of it.
    """
    if isinstance(model, Update):
        raise InvalidValue(f"coverage: nobody calibrates local model {model.pk}")
    try:
        found = shown_calibration(model, round, shown_to=asked_by)
    except NotFound as error:
        raise InvalidValue(f"coverage: {error.message}") from error
    reached = threshold(found.statistics, coverage, participants=found.participants)
    return Limit(reached, isinstance(found.statistics, ClassStatistics))


def set_of(samples: Array, limit: Limit, plan: Plan) -> Array:
    """From the outputs of one model asked once, (1, rows, ...), as participants have counted it.

    Classes: whether each may be the right one, (rows, classes). A regression: lower and upper ends, (rows, ..., 2).
    """
    outputs = samples[0]
    if not limit.is_of_classes:
        ends = np.stack(prediction_interval(outputs, limit.threshold), axis=-1)
        return narrowed(ends, np.result_type(outputs, np.float32), "interval")
    if outputs.ndim != 2:
        raise ModelFailed(f"the model's outputs have the shape {outputs.shape}; sets are of (rows, classes)")
    try:
        return prediction_set(probabilities(outputs, ending_of(samples, plan.softmax)), limit.threshold)
    except InvalidInput as error:
        raise ModelFailed(f"the model's outputs cannot be measured: {error.message}") from error
