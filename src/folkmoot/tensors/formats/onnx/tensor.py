"""The TensorProto of ONNX: a name, a type, dimensions, and values in one of seven fields.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidFile, TooLarge
from folkmoot.tensors.array_blocks import array_blocks
from folkmoot.tensors.formats import protobuf
from folkmoot.tensors.formats.protobuf import BYTES, FIXED32, FIXED64, VARINT, Field, Message
from folkmoot.tensors.limits import Limits
from folkmoot.tensors.schema import TensorSpec, why_not

DIMS, DATA_TYPE, SEGMENT, STRING_DATA, NAME, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 3, 6, 8, 9, 13, 14
FLOAT_DATA, INT32_DATA, INT64_DATA, DOUBLE_DATA, UINT64_DATA = 4, 5, 7, 10, 11

_DTYPES = {
    1: "F32",
    2: "U8",
    3: "I8",
    4: "U16",
    5: "I16",
    6: "I32",
    7: "I64",
    9: "BOOL",
    10: "F16",
    11: "F64",
    12: "U32",
    13: "U64",
    16: "BF16",
}
_OTHER_TYPES = {
    8: "strings",
    14: "complex64",
    15: "complex128",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    23: "float4_e2m1fn",
}

# Where values go that are not in raw_data, and how one of them is encoded; the smaller types are all in INT32_DATA.
_TYPED_FIELDS = {"F32": FLOAT_DATA, "F64": DOUBLE_DATA, "I64": INT64_DATA, "U32": UINT64_DATA, "U64": UINT64_DATA}
_WIRE_TYPES = {FLOAT_DATA: FIXED32, DOUBLE_DATA: FIXED64, INT32_DATA: VARINT, INT64_DATA: VARINT, UINT64_DATA: VARINT}
# A half-precision number travels as the integer that has its bits.
_BITS: dict[str, np.dtype[Any]] = {"BOOL": np.dtype("u1"), "F16": np.dtype("<u2"), "BF16": np.dtype("<u2")}

VALUES = frozenset({RAW_DATA, *_WIRE_TYPES})
"""The fields that hold numbers, and may be long."""

# Nobody writes more: it is one for each number of a list that could be packed into one field.
_MAX_FIELDS = 10_000
_MAX_DIMENSIONS = 32
# A small number is one byte in the file and up to eight in memory, where a tensor is whole when it is decoded.
_MAX_GROWTH = 32 << 20


@dataclass(frozen=True, slots=True)
class Initializer:
    """A tensor of a model, which has its values in the field number `field`.

    `num_field_bytes` counts what the fields with the values take in the message, with all that is around them.
    """

    spec: TensorSpec
    message: Message
    field: int
    num_field_bytes: int

    @property
    def _payload(self) -> memoryview:
        """The values as they are in the file; unpacked ones, put together, are what packed ones would be."""
        held = [self.message.payload(field) for field in self.message if field.number == self.field]
        return held[0] if len(held) == 1 else memoryview(b"".join(held))

    @property
    def _is_varint(self) -> bool:
        return _WIRE_TYPES.get(self.field) == VARINT

    @property
    def _bits(self) -> np.dtype[Any]:
        return _BITS.get(self.spec.dtype, self.spec.numpy_dtype)

    def values(self) -> npt.NDArray[Any]:
        """The values, read-only: a view of the file unless they have to be decoded."""
        if not self.spec.num_elements:
            return np.empty(self.spec.shape, self.spec.numpy_dtype)
        if self._is_varint:
            flat = self._decoded()
        else:
            flat = np.frombuffer(self._payload, self.spec.numpy_dtype, self.spec.num_elements)
        return flat.reshape(self.spec.shape)

    def _decoded(self) -> npt.NDArray[Any]:
        decoded = np.empty(self.spec.num_elements, self._bits)
        least, most = (0, 1) if self.spec.dtype == "BOOL" else (np.iinfo(self._bits).min, np.iinfo(self._bits).max)
        position = 0
        for unsigned in protobuf.decode_varints(self._payload):
            block = unsigned if self.field == UINT64_DATA else unsigned.view(np.int64)
            if block.min() < least or block.max() > most:
                raise InvalidFile(f"tensor {self.spec.name} holds numbers that are no {self.spec.dtype}")
            decoded[position : position + block.size] = block
            position += block.size
        decoded.flags.writeable = False
        return decoded.view(self.spec.numpy_dtype)

    def check_size(self) -> None:
        """Raise InvalidFile unless there are as many values as the dimensions say, TooLarge if they swell too much."""
        payload, spec = self._payload, self.spec
        if self._is_varint:
            expected, actual, what = spec.num_elements, protobuf.count_varints(payload), "values"
        else:
            expected, actual, what = spec.num_bytes, len(payload), "bytes"
        if expected != actual:
            raise InvalidFile(f"tensor {spec.name} should have {expected} {what} and has {actual}")
        if spec.num_bytes - len(payload) > _MAX_GROWTH:
            sizes = f"{len(payload)} bytes in the file and {spec.num_bytes} in memory"
            raise TooLarge(f"tensor {spec.name} takes {sizes}; tensors of this size have to be in raw_data")

    def encoded(self, array: npt.NDArray[Any]) -> Iterator[memoryview]:
        """Yield other values in blocks, in the encoding of this tensor."""
        for block in array_blocks(array, self.spec.numpy_dtype):
            if self._is_varint:
                yield protobuf.encode_varints(protobuf.as_unsigned(block.view(self._bits))).data
            else:
                yield block.view(np.uint8).data

    def num_encoded_bytes(self, array: npt.NDArray[Any]) -> int:
        """How many bytes `encoded` yields; in the message there is a header before them."""
        if not self._is_varint:
            return self.spec.num_bytes
        blocks = array_blocks(array, self.spec.numpy_dtype)
        unsigned = (protobuf.as_unsigned(block.view(self._bits)) for block in blocks)
        return sum(int(protobuf.varint_sizes(block).sum()) for block in unsigned)

    def message_bytes(self, num_encoded_bytes: int) -> int:
        """How long the message becomes with values of this size in it."""
        return len(self.message) - self.num_field_bytes + self._packed_bytes(num_encoded_bytes)

    def _packed_bytes(self, size: int) -> int:
        return len(protobuf.field_header(self.field, size)) + size if self.num_field_bytes else 0


def read_initializer(message: Message, limits: Limits) -> Initializer:
    """Read all but the values; raises InvalidFile, naming the tensor, and TooLarge."""
    fields = _grouped(message)
    name = _name(message, fields, limits)
    spec = TensorSpec(name, _dtype(name, fields), _shape(name, message, fields))
    number, held = _values(spec, fields)
    num_field_bytes = sum(field.stop - field.begin for field in held)
    initializer = Initializer(spec, message, number, num_field_bytes)
    initializer.check_size()
    return initializer


def _grouped(message: Message) -> dict[int, list[Field]]:
    grouped: dict[int, list[Field]] = {}
    for count, field in enumerate(message):
        if count == _MAX_FIELDS:
            raise TooLarge(
                f"the tensor at byte {message.start} has more than {_MAX_FIELDS} fields; lists can be packed"
            )
        grouped.setdefault(field.number, []).append(field)
    return grouped


def _only(what: str, fields: dict[int, list[Field]], number: int, wire_type: int) -> Field | None:
    """The field of this number, if there is one; of two, other readers take the last, or join them."""
    found = fields.get(number, [])
    if len(found) > 1 or any(field.wire_type != wire_type for field in found):
        raise InvalidFile(f"{what} has two of the field {number}, or one of a wrong type")
    return found[0] if found else None


def _name(message: Message, fields: dict[int, list[Field]], limits: Limits) -> str:
    what = f"the tensor at byte {message.start}"
    field = _only(what, fields, NAME, BYTES)
    if field is None or field.start == field.stop:
        raise InvalidFile(f"{what} has no name")
    if field.stop - field.start > 4 * limits.max_name_length:  # of UTF-8, before it is decoded
        raise TooLarge(f"a tensor's name is longer than {limits.max_name_length} characters")
    try:
        name = str(message.payload(field), "utf-8")
    except UnicodeDecodeError:
        raise InvalidFile(f"{what} has a name that is not UTF-8") from None
    if len(name) > limits.max_name_length:
        raise TooLarge(f"a tensor's name is longer than {limits.max_name_length} characters")
    return name


def _dtype(name: str, fields: dict[int, list[Field]]) -> str:
    field = _only(f"tensor {name!r}", fields, DATA_TYPE, VARINT)
    number = field.value if field else 0
    if number not in _DTYPES:
        other = _OTHER_TYPES.get(number, f"values of the ONNX data type {number}")
        raise InvalidFile(f"tensor {name!r} holds {other}: {why_not(other)}")
    return _DTYPES[number]


def _shape(name: str, message: Message, fields: dict[int, list[Field]]) -> tuple[int, ...]:
    shape: list[int] = []
    for field in fields.get(DIMS, []):
        if field.wire_type == VARINT:
            shape.append(field.value)
        else:
            shape += _packed_dims(message.child(field))
    if len(shape) > _MAX_DIMENSIONS or any(size >> 63 for size in shape):  # the highest bit is the sign's
        raise InvalidFile(f"tensor {name!r} has an impossible shape")
    return tuple(shape)


def _packed_dims(message: Message) -> list[int]:
    dims: list[int] = []
    position = message.start
    while position < message.stop and len(dims) <= _MAX_DIMENSIONS:
        size, position = protobuf.read_varint(message.file, position, message.stop)
        dims.append(size)
    return dims


def _values(spec: TensorSpec, fields: dict[int, list[Field]]) -> tuple[int, list[Field]]:
    """Find the one kind of field that holds the values; there may be none if there are no values."""
    typed = _TYPED_FIELDS.get(spec.dtype, INT32_DATA)
    present = {RAW_DATA, SEGMENT, STRING_DATA, *_WIRE_TYPES} & fields.keys()
    if SEGMENT in present:
        raise InvalidFile(f"tensor {spec.name} is a segment of another one, which is not taken")
    if len(present) > 1 or not present <= {RAW_DATA, typed}:
        raise InvalidFile(f"tensor {spec.name} ({spec.dtype}) has its values in the wrong field, or in two")
    number = present.pop() if present else RAW_DATA
    held = fields.get(number, [])
    wire_types = {field.wire_type for field in held}
    packed = wire_types == {BYTES} and len(held) == 1
    unpacked = number != RAW_DATA and wire_types == {_WIRE_TYPES[number]}
    if held and not packed and not unpacked:
        raise InvalidFile(f"tensor {spec.name} has its values in several pieces or in a wrong type of field")
    return number, held
