"""What a training function returned, as the update that the hub takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.tensors import Schema, Tensors, TensorSpec
from folkmoot.tensors.conform import conform
from folkmoot.tensors.schema import is_float
from folkmoot.tensors.selection import select


def fit(weights: Mapping[str, npt.ArrayLike], model: Schema, exchange: Sequence[str] = ()) -> Tensors:
    """`weights` in the dtypes of `model`, where they are floats; raises SchemaMismatch naming what does not fit.

    With the patterns `exchange` only the tensors that they name, whether or not the others are there.
    Other dtypes must be the model's own already: a rounded counter would be a silent error.
    What a strategy has travel beside the model, such as `control_variate/w`, is as `w` is.
    """
    known = Schema([*model, *_beside(weights, model)])
    wanted = {spec.name: spec for spec in known}
    update = {name: _cast(np.asarray(array), wanted.get(name)) for name, array in weights.items()}
    if not exchange:
        return conform(update, known, known)
    travelling = select(model, exchange)
    return conform(update, Schema([*travelling, *_beside(weights, travelling)]), known)


def _beside(weights: Iterable[str], model: Schema) -> list[TensorSpec]:
    """Those of the names that begin with something of a strategy's and end with a tensor of the model."""
    own = {spec.name: spec for spec in model}
    return [
        replace(own[name.partition("/")[2]], name=name)
        for name in weights
        if name not in own and name.partition("/")[2] in own
    ]


def _cast(array: npt.NDArray[Any], wanted: TensorSpec | None) -> npt.NDArray[Any]:
    if wanted is None or not is_float(wanted.numpy_dtype) or not (is_float(array.dtype) or array.dtype.kind in "iu"):
        return array
    with np.errstate(over="ignore"):  # the hub names the tensor that holds an infinity
        return array.astype(wanted.numpy_dtype, copy=False)
