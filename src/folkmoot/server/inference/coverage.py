"""Sets and intervals that hold the truth as often as is asked, from what participants have counted of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidInput, InvalidValue, ModelFailed
from folkmoot.server.accounts.models import User
from folkmoot.server.registry.models import Model
from folkmoot.server.trainings.calibration import shown_calibration
from folkmoot.server.trainings.models import Update
from folkmoot.uncertainty import (
    ClassStatistics,
    Ending,
    Statistics,
    prediction_interval,
    prediction_set,
    probabilities,
    threshold,
)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Calibrated:
    """Of a checkpoint, at one coverage."""

    statistics: Statistics
    threshold: float

    def around(self, outputs: Array, *, softmax: bool | None) -> Array:
        """Of outputs of shape (rows, classes), for each class whether it is in the set; of a regression the lower and
        the upper end, on a further axis. Raises ModelFailed for what is neither.
        """
        try:
            if isinstance(self.statistics, ClassStatistics):
                likely = probabilities(outputs, Ending.LOGITS if softmax else None)
                return prediction_set(likely, self.threshold)
            return np.stack(prediction_interval(outputs, self.threshold), axis=-1).astype(outputs.dtype)
        except InvalidInput as error:
            raise ModelFailed(f"the model's outputs have no prediction set: {error.message}") from error


def calibrated(model: Model | Update, coverage: float, *, round: int | None, shown_to: User) -> Calibrated:
    """From all that was counted of the checkpoint; those of one participant alone are not shown to everybody.

    Raises InvalidValue where there is too little, or nothing.
    """
    number = model.round.number if isinstance(model, Update) else model.round if round is None else round
    found = shown_calibration(model, number, shown_to=shown_to) if isinstance(model, Model) else None
    if found is None:
        raise InvalidValue(f"coverage: model {model.pk} has no calibration statistics of round {number}.")
    return Calibrated(found.statistics, threshold(found.statistics, coverage, participants=found.participants))
