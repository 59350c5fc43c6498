"""Which tensors a model has: names, dtypes and shapes, and the order in which a file holds them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, overload

import ml_dtypes
import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidFile, SchemaMismatch
from folkmoot.tensors.array_blocks import Block, array_blocks

Tensors = Mapping[str, npt.NDArray[Any]]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
"""NumPy itself has none. To it this is a void of two bytes, so ask `is_float` and not for the dtype's kind."""

# By rank: the reference implementation of safetensors writes the higher ranks first, which also aligns
# every tensor to its own element size.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("|b1"),
    "U8": np.dtype("|u1"),
    "I8": np.dtype("|i1"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
}
_RANKS = {name: rank for rank, name in enumerate(DTYPES)}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The safetensors name of a dtype of either byte order; NumPy's own name where there is none."""
    return _NAMES.get(dtype.newbyteorder("<"), dtype.name)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether values of this dtype may be fractions, NaN and infinities."""
    return dtype.kind == "f" or dtype == BFLOAT16


_COMPLEX = (
    "means of complex numbers have no agreed meaning; send the real and the imaginary parts as tensors of their own"
)
_SHORT = "so few bits cannot hold the mean of several; send tensor.to(torch.bfloat16)"
_QUANTISED = "means of quantised numbers have no agreed meaning; send tensor.dequantize()"
# By how the names begin, in safetensors and in NumPy.
_WHY_NOT = {"complex": _COMPLEX, "C64": _COMPLEX, "qint": _QUANTISED, "quint": _QUANTISED}
_WHY_NOT |= dict.fromkeys(("float8", "float4", "F8_", "F6_", "F4"), _SHORT)


def why_not(dtype: str) -> str:
    """Say why a dtype is not taken and what to send instead; where no reason is known, which ones are taken."""
    reasons = (reason for beginning, reason in _WHY_NOT.items() if dtype.startswith(beginning))
    return next(reasons, f"taken are {', '.join(DTYPES)}")


METADATA = "__metadata__"
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_DIMENSIONS = 32  # NumPy 1.26 has no more
_MAX_TENSOR_BYTES = 2**62


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor without its values; `dtype` is the safetensors name, such as F32.

    Raises InvalidFile for a dtype that is not taken, a name that cannot be shown, an impossible shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.name == METADATA or _UNPRINTABLE.search(self.name):
            raise InvalidFile(f"{self.name!r} cannot be the name of a tensor")
        if self.dtype not in DTYPES:
            raise InvalidFile(f"tensor {self.name} has the dtype {self.dtype}: {why_not(self.dtype)}")
        if len(self.shape) > _MAX_DIMENSIONS or any(size < 0 for size in self.shape):
            raise InvalidFile(f"tensor {self.name} has an impossible shape")
        # Zeros aside: NumPy cannot make (0, 2**63) either.
        if math.prod(size or 1 for size in self.shape) * self.numpy_dtype.itemsize > _MAX_TENSOR_BYTES:
            raise InvalidFile(f"tensor {self.name} has an impossible shape")

    @classmethod
    def of(cls, name: str, array: npt.NDArray[Any]) -> TensorSpec:
        """Describe `array`; its byte order does not matter, since files are always little-endian."""
        return cls(name, dtype_name(array.dtype), array.shape)

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return DTYPES[self.dtype]

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_elements * self.numpy_dtype.itemsize


class Span(NamedTuple):
    """Where a tensor lies, in bytes from the start of the data."""

    spec: TensorSpec
    start: int
    stop: int


@dataclass(frozen=True)
class Schema(Sequence[TensorSpec]):
    """The tensors of a model in canonical order, the one in which the reference implementation writes them."""

    specs: tuple[TensorSpec, ...]

    def __init__(self, specs: Iterable[TensorSpec]) -> None:
        ordered = tuple(sorted(specs, key=lambda spec: (-_RANKS[spec.dtype], spec.name)))
        if len({spec.name for spec in ordered}) < len(ordered):
            raise InvalidFile("two tensors have the same name")
        object.__setattr__(self, "specs", ordered)

    @classmethod
    def of(cls, tensors: Tensors) -> Schema:
        """Describe `tensors`; those on disk are not read."""
        if isinstance(tensors, StoredTensors):
            return tensors.schema
        return cls(TensorSpec.of(name, np.asarray(array)) for name, array in tensors.items())

    @overload
    def __getitem__(self, index: int) -> TensorSpec: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TensorSpec, ...]: ...
    def __getitem__(self, index: int | slice) -> TensorSpec | tuple[TensorSpec, ...]:
        return self.specs[index]

    def __len__(self) -> int:
        return len(self.specs)

    @property
    def num_bytes(self) -> int:
        """The size of the data, without the header."""
        return sum(spec.num_bytes for spec in self.specs)

    @property
    def num_elements(self) -> int:
        return sum(spec.num_elements for spec in self.specs)

    def spans(self) -> Iterator[Span]:
        start = 0
        for spec in self.specs:
            stop = start + spec.num_bytes
            yield Span(spec, start, stop)
            start = stop

    def header(self) -> bytes:
        """The bytes before the data, as the reference implementation writes them: length, JSON, spaces to 8."""
        # Entry by entry: as one object, that of 100,000 tensors takes 70 MB.
        text = b"{" + b",".join(map(_header_entry, self.spans())) + b"}"
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def _header_entry(span: Span) -> bytes:
    spec, start, stop = span
    entry = {spec.name: {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": (start, stop)}}
    return _ENCODER.encode(entry)[1:-1].encode()


class StoredTensors(Mapping[str, npt.NDArray[Any]]):
    """Tensors in a file, each read when it is asked for.

    `tied` groups the names that are one and the same memory to whoever wrote the file; `trainable` says of a name
    whether it is a parameter or a buffer. Both are empty where the format does not tell. `parameters` names these,
    frozen ones included, in the order of the model's own; it is None where the format does not tell.
    """

    schema: Schema
    tied: tuple[tuple[str, ...], ...] = ()
    trainable: Mapping[str, bool] = MappingProxyType({})
    parameters: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator[str]:
        return (spec.name for spec in self.schema)

    def __len__(self) -> int:
        return len(self.schema)

    def blocks(self, name: str) -> Iterator[Block]:
        """Yield the values of a tensor as `blocks_of` does; for formats whose tensors are not in memory as a whole."""
        array = self[name]
        return array_blocks(array, _little_endian(array.dtype))


def blocks_of(tensors: Tensors, name: str) -> Iterator[Block]:
    """Yield the values of one tensor in C order, as small contiguous arrays, little-endian."""
    if isinstance(tensors, StoredTensors):
        return tensors.blocks(name)
    array = np.asarray(tensors[name])
    return array_blocks(array, _little_endian(array.dtype))


def _little_endian(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("<")


_MOST_NAMED = 5


def check_fits(expected: Schema, actual: Schema, *, what: str = "update") -> None:
    """Raise SchemaMismatch, naming the tensors, unless both have the same names, dtypes and shapes."""
    if expected == actual:
        return
    differences = list(_differences(expected, actual))
    named = "; ".join(differences[:_MOST_NAMED])
    rest = len(differences) - _MOST_NAMED
    raise SchemaMismatch(f"{what} does not fit the model: {named}" + (f"; and {rest} more" if rest > 0 else ""))


def _differences(expected: Schema, actual: Schema) -> Iterator[str]:
    actual_specs = {spec.name: spec for spec in actual}
    for wanted in expected:
        spec = actual_specs.pop(wanted.name, None)
        if spec is None:
            yield f"{wanted.name} is missing"
        elif spec.shape != wanted.shape:
            yield f"{wanted.name} is {spec.shape}, expected {wanted.shape}"
        elif spec.dtype != wanted.dtype:
            yield f"{wanted.name} is {spec.dtype}, expected {wanted.dtype}"
    for name in actual_specs:
        yield f"{name} is not in the model"
