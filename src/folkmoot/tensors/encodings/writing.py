"""From an update to its encoded file, chunk by chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedRandom
from itertools import repeat
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidValue, NonFinite
from folkmoot.tensors.array_blocks import array_blocks
from folkmoot.tensors.encodings.base import Base
from folkmoot.tensors.encodings.chunks import Float64s, Parts, pack, saturated, unpack
from folkmoot.tensors.encodings.description import Description
from folkmoot.tensors.encodings.encoding import Encoding
from folkmoot.tensors.encodings.frame import compressor
from folkmoot.tensors.encodings.layout import CHUNK_ELEMENTS, Layout
from folkmoot.tensors.replacing import replacing
from folkmoot.tensors.schema import Schema, Tensors, TensorSpec, check_fits, is_float
from folkmoot.tensors.tensor_file import TensorFileWriter, WrittenFile

_FLOAT64 = np.dtype(np.float64)
_NOTHING: Tensors = MappingProxyType({})


def encode(
    tensors: Tensors,
    encoding: Encoding,
    output: Path,
    *,
    base: Base | None = None,
    unsent: Tensors = _NOTHING,
    left: Path | None = None,
    durable: bool = True,
) -> WrittenFile:
    """Write the update `tensors` to `output` in fewer bytes; equal input gives equal bytes.

    With `encoding.difference`, `base` has at least the tensors of the update. `unsent`, what earlier updates could not
    say, is added to the difference, and what this one does not say is written to `left`, a TensorFile with the
    update's floats. A tensor with a value too large for the encoding travels as it is. Holds one chunk, and of one
    tensor the scales and indices. Raises NonFinite naming the tensor, SchemaMismatch, StorageFull.
    """
    schema = Schema.of(tensors)
    intended = _Intended(tensors, _base_tensors(schema, encoding, base), unsent)
    layouts = {spec.name: _layout(spec, encoding, intended) for spec in schema}
    description = Description(encoding, base.sha256 if encoding.difference and base else None, layouts)
    with ExitStack() as stack:
        header = description.header()
        sink = _Sink(
            stack.enter_context(replacing(output, durable=durable)), encoding.zstd, len(header) + description.num_bytes
        )
        floats = Schema(spec for spec in schema if is_float(spec.numpy_dtype))
        rest = _Rest(stack.enter_context(TensorFileWriter(left, floats, durable=durable))) if left else None
        sink.write(header)
        for layout in layouts.values():
            for block in _encoded(layout, intended, rest):
                sink.write(block.view(np.uint8).data)
        return sink.finish()


def _base_tensors(schema: Schema, encoding: Encoding, base: Base | None) -> Tensors:
    if not encoding.difference:
        return _NOTHING
    if base is None:
        raise InvalidValue("an encoding with differences needs the model that they are differences to")
    names = {spec.name for spec in schema}
    check_fits(Schema(spec for spec in Schema.of(base.tensors) if spec.name in names), schema)
    return base.tensors


@dataclass(frozen=True)
class _Intended:
    """What an update is to say: the trained values, or their difference to the base and what was left unsent."""

    tensors: Tensors
    base: Tensors
    unsent: Tensors

    def chunks(self, name: str) -> Iterator[tuple[Float64s, Float64s]]:
        """The intended numbers and the base's; raises NonFinite."""
        values = _chunks(self.tensors, name)
        for value, base, unsent in zip(values, _chunks(self.base, name), _chunks(self.unsent, name), strict=False):
            if not np.isfinite(value).all():
                raise NonFinite(f"{name} holds {value[np.isfinite(value).argmin()]}")
            with np.errstate(over="ignore"):  # an infinity is more than any encoding takes, so the tensor goes as it is
                intended = value - base + unsent
            yield intended, base

    def largest(self, name: str) -> float:
        return max((float(np.abs(intended).max()) for intended, _ in self.chunks(name)), default=0.0)


def _chunks(tensors: Tensors, name: str) -> Iterator[Float64s]:
    if name not in tensors:
        return repeat(np.zeros(()))
    return array_blocks(np.asarray(tensors[name]), _FLOAT64, CHUNK_ELEMENTS)


def _layout(spec: TensorSpec, encoding: Encoding, intended: _Intended) -> Layout:
    layout = Layout(spec, encoding, is_exact=False)
    gets_smaller = is_float(spec.numpy_dtype) and (encoding.difference or layout.values_dtype != spec.dtype)
    if gets_smaller and intended.largest(spec.name) <= layout.largest():
        return layout
    return Layout(spec, encoding, is_exact=True)


def _encoded(layout: Layout, intended: _Intended, rest: _Rest | None) -> Iterator[npt.NDArray[Any]]:
    """The bytes of the tensor's parts; what the reader will not have of it goes to `rest`."""
    if layout.is_exact:
        yield from array_blocks(np.asarray(intended.tensors[layout.spec.name]), layout.spec.numpy_dtype)
        if rest and is_float(layout.spec.numpy_dtype):
            rest.carry_over(layout.spec, intended.unsent)
        return
    scales, indices = [], []
    for numbers, base in intended.chunks(layout.spec.name):
        parts = pack(numbers, layout)
        if rest:
            rest.keep(numbers, base, parts, layout)
        yield parts.values
        scales.append(parts.scales)
        indices.append(parts.indices)
    yield from (part for part in (*scales, *indices) if part is not None)


class _Rest:
    """Writes down what is intended and not sent."""

    def __init__(self, writer: TensorFileWriter) -> None:
        self._writer = writer

    def keep(self, intended: Float64s, base: Float64s, parts: Parts, layout: Layout) -> None:
        # As the reader rounds it: what is lost in the model's own dtype is unsent, too.
        dtype = layout.spec.numpy_dtype
        received = saturated(base + unpack(parts, intended.size, layout), dtype).astype(np.float64)
        self._write(saturated(intended - (received - base), dtype))

    def carry_over(self, spec: TensorSpec, unsent: Tensors) -> None:
        """Keep what was there: a tensor that travels as it is says nothing of it."""
        earlier = np.asarray(unsent[spec.name]) if spec.name in unsent else np.broadcast_to(0.0, spec.shape)
        for block in array_blocks(earlier, spec.numpy_dtype):
            self._write(block)

    def _write(self, block: npt.NDArray[Any]) -> None:
        self._writer.write(block.view(np.uint8).data)


class _Sink:
    """The file that is being written: through zstd, if a level is given, and through SHA-256."""

    def __init__(self, file: BufferedRandom, level: int | None, num_bytes: int) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._frame = compressor(level, num_bytes) if level else None

    def write(self, data: bytes | memoryview) -> None:
        self._put(self._frame.compress(data) if self._frame else data)

    def finish(self) -> WrittenFile:
        if self._frame:
            self._put(self._frame.flush())
        return WrittenFile(self._digest.hexdigest(), self._file.tell())

    def _put(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._file.write(data)
