"""ONNX: the tensors of a model are the initializers of its graph; all else stays the template's own.

Constants that are nodes, and what the bodies of loops and branches bring with them, are not tensors of the
model. Read without the onnx package, whose parser is native code.
Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.errors import ExternalData, InvalidFile, InvalidValue, TooLarge
from folkmoot.tensors.formats.onnx import tensor as tensor_fields
from folkmoot.tensors.formats.onnx.tensor import Initializer, read_initializer
from folkmoot.tensors.formats.protobuf import BYTES, VARINT, Field, Message, field_header
from folkmoot.tensors.limits import TRUSTED, Limits
from folkmoot.tensors.replacing import replacing
from folkmoot.tensors.schema import Schema, StoredTensors, Tensors, check_fits
from folkmoot.tensors.tensor_file import WrittenFile, map_file

NAME = "onnx"
EXTENSION = ".onnx"

_IR_VERSION = 1
_GRAPH = 7
_INITIALIZER = 5
_SPARSE_INITIALIZER = 15
_MODEL_WIRE_TYPES = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 8: BYTES, 14: BYTES}

# Which fields of a message hold messages of which kind, as far as tensors can be in them.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {_GRAPH: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", _INITIALIZER: "tensor", _SPARSE_INITIALIZER: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_MAX_FIELDS = 1_000_000  # about a second's work; a model of ten thousand nodes has a quarter of it


def recognise(head: bytes) -> bool:
    """A ModelProto whose ir_version comes first, as every writer has it, or after other short fields of a model."""
    try:
        for field in Message(memoryview(head), 0, len(head)):
            if field.number == _IR_VERSION:
                return field.wire_type == VARINT
            if _MODEL_WIRE_TYPES.get(field.number) != field.wire_type:
                return False
    except InvalidFile:
        pass
    return False


def read(path: Path, limits: Limits) -> OnnxFile:
    return OnnxFile(path, limits)


class OnnxFile(StoredTensors):
    """The initializers of a model; those in `raw_data` are views of the file, others may have to be decoded."""

    def __init__(self, path: Path, limits: Limits) -> None:
        view = memoryview(map_file(path, limits))
        self.model = Message(view, 0, len(view))
        _Inspection(limits).inspect("model", self.model)
        self.graph = _only_graph(self.model)
        self.initializers = _initializers(self.graph, limits)
        self.schema = Schema(initializer.spec for initializer in self.initializers.values())
        if self.schema.num_bytes > limits.max_bytes:
            raise TooLarge(f"the tensors take {self.schema.num_bytes} bytes; at most {limits.max_bytes} are taken")

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.initializers[name].values()


class _Inspection:
    """One look at every field in which a tensor could be: that it is well-formed, and points to no other file."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.num_fields = 0
        self.header_bytes_left = limits.max_header_bytes

    def inspect(self, kind: str, message: Message, depth: int = 0) -> None:
        if depth > self.limits.max_nesting:
            raise TooLarge(f"the model is nested more than {self.limits.max_nesting} deep")
        inside = _INSIDE[kind]
        for field in message:
            self.spend(kind, field)
            if field.number in inside:
                self.inspect(inside[field.number], message.child(field), depth + 1)
            elif kind == "tensor" and _points_elsewhere(field):
                raise ExternalData(f"{_named(message)} has its values in another file; export the model as one file")

    def spend(self, kind: str, field: Field) -> None:
        """Count the field, and all of its bytes but those that are a tensor's values or a message to be inspected."""
        self.num_fields += 1
        if self.num_fields > _MAX_FIELDS:
            raise TooLarge(f"the model has more than {_MAX_FIELDS} fields")
        is_value = kind == "tensor" and field.number in tensor_fields.VALUES
        stop = field.start if is_value or field.number in _INSIDE[kind] else field.stop
        self.header_bytes_left -= stop - field.begin
        if self.header_bytes_left < 0:
            most = self.limits.max_header_bytes
            raise TooLarge(f"the model has more than {most} bytes beside the values of its tensors")


def _points_elsewhere(field: Field) -> bool:
    if field.number == tensor_fields.DATA_LOCATION:
        return field.wire_type != VARINT or field.value != 0
    return field.number == tensor_fields.EXTERNAL_DATA


def _named(tensor: Message) -> str:
    names = [bytes(tensor.payload(field)[:512]) for field in tensor if field.number == tensor_fields.NAME]
    return f"tensor {names[-1].decode(errors='replace')!r}" if names else "a tensor without a name"


def _only_graph(model: Message) -> Message:
    graphs = [field for field in model if field.number == _GRAPH]
    if len(graphs) != 1:
        raise InvalidFile(f"an ONNX model has one graph; this file has {len(graphs)}")
    return model.child(graphs[0])


def _initializers(graph: Message, limits: Limits) -> dict[str, Initializer]:
    initializers: dict[str, Initializer] = {}
    for field in graph:
        if field.number == _SPARSE_INITIALIZER:
            raise InvalidFile("the graph has a sparse initializer, which is not taken")
        if field.number == _INITIALIZER:
            initializer = read_initializer(graph.child(field), limits)
            if initializer.spec.name in initializers:
                raise InvalidFile(f"two initializers have the name {initializer.spec.name}")
            if len(initializers) == limits.max_tensors:
                raise TooLarge(f"the file has more than {limits.max_tensors} tensors")
            initializers[initializer.spec.name] = initializer
    return initializers


def write(template: Path, tensors: Tensors, output: Path) -> WrittenFile:
    """Write the template byte for byte with other values in its initializers, each in the field that held them."""
    original = OnnxFile(template, TRUSTED)
    check_fits(original.schema, Schema.of(tensors), what="checkpoint")
    digest = hashlib.sha256()
    with replacing(output) as file:
        for chunk in model_chunks(original, tensors):
            digest.update(chunk)
            file.write(chunk)
        return WrittenFile(digest.hexdigest(), file.tell())


def export(tensors: Tensors, output: Path) -> WrittenFile:
    """Raise InvalidValue: tensors alone do not say what to compute."""
    raise InvalidValue("an ONNX file needs a graph beside its tensors, so it can be made only from an ONNX template")


def model_chunks(original: OnnxFile, tensors: Tensors) -> Iterator[bytes | memoryview]:
    """Yield the bytes of the model with the values of `tensors`, which fit it."""
    # Where a number has as many bytes as its value needs, other values change the sizes of all that is around them.
    sizes = {name: item.num_encoded_bytes(np.asarray(tensors[name])) for name, item in original.initializers.items()}
    for field in original.model:
        if field.number == _GRAPH:
            yield field_header(_GRAPH, _graph_bytes(original, sizes))
            yield from _graph_chunks(original, tensors, sizes)
        else:
            yield original.model.file[field.begin : field.stop]


def _graph_bytes(original: OnnxFile, sizes: dict[str, int]) -> int:
    growth = 0
    for name, initializer in original.initializers.items():
        before, after = len(initializer.message), initializer.message_bytes(sizes[name])
        growth += after + len(field_header(_INITIALIZER, after)) - before - len(field_header(_INITIALIZER, before))
    return len(original.graph) + growth


def _graph_chunks(original: OnnxFile, tensors: Tensors, sizes: dict[str, int]) -> Iterator[bytes | memoryview]:
    in_order = iter(original.initializers.items())
    for field in original.graph:
        if field.number == _INITIALIZER:
            name, initializer = next(in_order)
            yield field_header(_INITIALIZER, initializer.message_bytes(sizes[name]))
            yield from _tensor_chunks(initializer, np.asarray(tensors[name]), sizes[name])
        else:
            yield original.graph.file[field.begin : field.stop]


def _tensor_chunks(initializer: Initializer, array: npt.NDArray[Any], size: int) -> Iterator[bytes | memoryview]:
    """The message with the values in one field, where the first of those was that held them."""
    written = False
    for field in initializer.message:
        if field.number != initializer.field:
            yield initializer.message.file[field.begin : field.stop]
        elif not written:
            yield field_header(initializer.field, size)
            yield from initializer.encoded(array)
            written = True
