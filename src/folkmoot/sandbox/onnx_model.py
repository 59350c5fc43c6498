"""ONNX, run by onnxruntime on one thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from folkmoot.errors import ModelFailed
from folkmoot.sandbox.handing import HandedFile
from folkmoot.sandbox.libraries import require
from folkmoot.sandbox.numpy_model import check_places, float_tensors, no_dropout
from folkmoot.sandbox.wire import Array
from folkmoot.tensors import Tensors
from folkmoot.tensors.formats.onnx.format import OnnxFile, model_chunks
from folkmoot.tensors.limits import TRUSTED

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class OnnxModel:
    """A graph with one input; the first output of floats counts, since classifiers have labels before it."""

    def __init__(self, template: HandedFile) -> None:
        self._file = OnnxFile(template, TRUSTED)
        self._tensors = {name: self._file[name] for name in self._file}
        self._session: Any = None

    def use(self, tensors: Tensors) -> None:
        check_places(tensors, {spec.name: spec.shape for spec in self._file.schema})
        for name in tensors:
            self._tensors[name] = np.asarray(tensors[name]).astype(self._tensors[name].dtype, copy=False)
        self._session = _session(b"".join(map(bytes, model_chunks(self._file, self._tensors))))

    def run(self, inputs: Array) -> Array:
        expected = self._session.get_inputs()
        if len(expected) != 1:
            raise ModelFailed(f"the model has {len(expected)} inputs; expected one")
        dtype = _DTYPES.get(expected[0].type, inputs.dtype)
        outputs = self._session.run(None, {expected[0].name: inputs.astype(dtype, copy=False)})
        arrays = [output for output in outputs if isinstance(output, np.ndarray)]
        if not arrays:
            raise ModelFailed("the model's outputs are no tensors")
        return next((array for array in arrays if array.dtype.kind == "f"), arrays[0])

    def run_with_dropout(self, inputs: Array, *, samples: int, seed: int) -> Array:
        raise no_dropout("a model in ONNX")

    def parameters(self) -> Mapping[str, tuple[int, ...]]:
        return float_tensors(self._file)

    def summary(self, shape: tuple[int | None, ...]) -> None:
        return None


def _session(model: bytes) -> Any:
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
