"""What a hub answers when a model is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidFile, Unavailable
from folkmoot.tensors import Limits, TensorFile
from folkmoot.tensors.header import parse_header

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Prediction:
    """`inference` is the most likely class of each row, or where the training has an uncertainty method the mean.

    `uncertainty` has the measures by their names, in the outputs' units or nats. `prediction_set`, where a coverage was
    asked for, says of each class whether it is in, (rows, classes); of a regression it has the lower and upper ends,
    (rows, ..., 2).
    """

    inference: Array
    uncertainty: dict[str, Array]
    prediction_set: Array | None = None


def read_prediction(answer: bytes) -> Prediction:
    """From safetensors; raises Unavailable for what no hub would answer."""
    try:
        tensors = dict(TensorFile(Path("answer"), answer, parse_header(memoryview(answer), Limits())))
        inference, sets = tensors.pop("inference"), tensors.pop("prediction_set", None)
    except (InvalidFile, KeyError):
        raise Unavailable("a question was answered with something else than a prediction; is it a hub?") from None
    is_mask = sets is not None and sets.dtype.kind == "i"
    return Prediction(inference, tensors, np.asarray(sets, dtype=bool) if is_mask else sets)
