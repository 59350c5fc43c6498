"""What a training function returned, as the update that the hub takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.tensors import Schema, Tensors, TensorSpec, check_fits
from folkmoot.tensors.schema import is_float


def fit(weights: Mapping[str, npt.ArrayLike], model: Schema) -> Tensors:
    """`weights` in the dtypes of `model`, where they are floats; raises SchemaMismatch naming what does not fit.

    Other dtypes must be the model's own already: a rounded counter would be a silent error.
    """
    wanted = {spec.name: spec for spec in model}
    update = {name: _cast(np.asarray(array), wanted.get(name)) for name, array in weights.items()}
    check_fits(model, Schema.of(update))
    return update


def _cast(array: npt.NDArray[Any], wanted: TensorSpec | None) -> npt.NDArray[Any]:
    if wanted is None or not is_float(wanted.numpy_dtype) or not (is_float(array.dtype) or array.dtype.kind in "iu"):
        return array
    with np.errstate(over="ignore"):  # the hub names the tensor that holds an infinity
        return array.astype(wanted.numpy_dtype, copy=False)
