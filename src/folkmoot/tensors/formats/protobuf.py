"""The wire format of protocol buffers, read strictly and in place: fields, their numbers and where they lie.

Every number has to be written in as few bytes as it needs, and deprecated groups are not taken, so that a
message that is written again from its fields is the same message, byte for byte.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidFile

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
_MAX_NUMBER = (1 << 29) - 1
_MAX_VARINT_BYTES = 10
_BLOCK_BYTES = 1 << 17

Unsigned = npt.NDArray[np.uint64]


class Field(NamedTuple):
    """One field of a message: it takes the bytes from `begin` to `stop`, its payload begins at `start`.

    `value` is that of a VARINT, as an unsigned number.
    """

    number: int
    wire_type: int
    value: int
    begin: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Message:
    """The fields between two places of a file; reading them raises InvalidFile where they are malformed."""

    file: memoryview
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[Field]:
        position = self.start
        while position < self.stop:
            field = _field(self.file, position, self.stop)
            yield field
            position = field.stop

    def payload(self, field: Field) -> memoryview:
        return self.file[field.start : field.stop]

    def child(self, field: Field) -> Message:
        """The message that is the payload of `field`."""
        if field.wire_type != BYTES:
            raise InvalidFile(f"the field at byte {field.begin} should hold a message and holds a number")
        return Message(self.file, field.start, field.stop)


def _field(file: memoryview, begin: int, stop: int) -> Field:
    tag, start = read_varint(file, begin, stop)
    number, wire_type = tag >> 3, tag & 7
    if not 1 <= number <= _MAX_NUMBER:
        raise InvalidFile(f"at byte {begin} there is no field")
    value = 0
    if wire_type == BYTES:
        length, start = read_varint(file, start, stop)
        end = start + length
    elif wire_type == VARINT:
        value, end = read_varint(file, start, stop)
    elif wire_type in _FIXED_BYTES:
        end = start + _FIXED_BYTES[wire_type]
    else:
        raise InvalidFile(f"the field at byte {begin} is of the wire type {wire_type}, which is not taken")
    if end > stop:
        raise InvalidFile(f"the field at byte {begin} is cut off: it ends at byte {end}, what holds it at {stop}")
    return Field(number, wire_type, value, begin, start, end)


def read_varint(file: memoryview, position: int, stop: int) -> tuple[int, int]:
    """Return the number that begins at `position`, and where it ends."""
    if position < stop and (first := file[position]) < 0x80:  # nearly all are, and a file may have a million
        return first, position + 1
    value = 0
    for place, byte in enumerate(file[position : min(position + _MAX_VARINT_BYTES, stop)]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if value >> 64 or (place and not byte):
                raise InvalidFile(f"the number at byte {position} takes more bytes than it may")
            return value, position + place + 1
    raise InvalidFile(f"the number at byte {position} has no end")


def write_varint(value: int) -> bytes:
    """Encode a natural number."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


def field_header(number: int, num_bytes: int) -> bytes:
    """What stands before a payload of so many bytes."""
    return write_varint(number << 3 | BYTES) + write_varint(num_bytes)


def count_varints(packed: memoryview) -> int:
    """How many numbers there are, if they are well-formed."""
    return sum(int(np.count_nonzero(block < 0x80)) for block in _blocks(packed))


def _blocks(packed: memoryview) -> Iterator[npt.NDArray[np.uint8]]:
    for start in range(0, len(packed), _BLOCK_BYTES):
        yield np.frombuffer(packed[start : start + _BLOCK_BYTES], np.uint8)


def decode_varints(packed: memoryview) -> Iterator[Unsigned]:
    """Yield the numbers of a packed field in blocks, negative ones as their two's complement in 64 bits."""
    position = 0
    while position < len(packed):
        block = np.frombuffer(packed[position : position + _BLOCK_BYTES], np.uint8)
        ends = np.flatnonzero(block < 0x80)
        if not ends.size:
            raise InvalidFile("a packed number has no end")
        yield _decode(block, ends)
        position += int(ends[-1]) + 1


def _decode(block: npt.NDArray[np.uint8], ends: npt.NDArray[np.intp]) -> Unsigned:
    starts = np.concatenate([ends[:1] * 0, ends[:-1] + 1])
    sizes = ends - starts + 1
    last = block[ends]
    if ((last == 0) & (sizes > 1)).any() or ((last > 1) & (sizes == _MAX_VARINT_BYTES)).any():
        raise InvalidFile("a packed number takes more bytes than it may")
    if sizes.max() > _MAX_VARINT_BYTES:
        raise InvalidFile("a packed number takes more bytes than it may")
    values: Unsigned = (block[starts] & 0x7F).astype(np.uint64)
    for place in range(1, int(sizes.max())):
        longer = np.flatnonzero(sizes > place)
        values[longer] |= (block[starts[longer] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return values


def varint_sizes(values: Unsigned) -> npt.NDArray[np.intp]:
    """How many bytes each of the numbers takes."""
    sizes = np.ones(values.size, np.intp)
    for place in range(1, _MAX_VARINT_BYTES):
        larger = values >= np.uint64(1 << 7 * place)
        if not larger.any():
            break
        sizes += larger
    return sizes


def encode_varints(values: Unsigned) -> npt.NDArray[np.uint8]:
    """The bytes of a packed field that holds `values`."""
    sizes = varint_sizes(values)
    stops = np.cumsum(sizes)
    starts = stops - sizes
    encoded = np.empty(int(sizes.sum()), np.uint8)
    for place in range(int(sizes.max(initial=0))):
        reaching = np.flatnonzero(sizes > place)
        rest = values[reaching] >> np.uint64(7 * place)
        encoded[starts[reaching] + place] = (rest & np.uint64(0x7F)).astype(np.uint8) | 0x80
    encoded[stops - 1] &= 0x7F
    return encoded


def as_unsigned(integers: npt.NDArray[Any]) -> Unsigned:
    """Integers as the numbers that stand for them on the wire: the two's complement in 64 bits."""
    return integers.astype(np.int64 if integers.dtype.kind == "i" else np.uint64).view(np.uint64)
