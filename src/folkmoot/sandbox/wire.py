"""Messages between processes: JSON, arrays as they lie in memory, descriptors. Reading one runs nothing.

A message is two lengths, a JSON object, and then the bytes of its arrays one after the other.
"""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_HEAD = struct.Struct("<LQ")
_MAX_JSON_BYTES = 4 << 20
_DTYPES = frozenset({"|b1", "|u1", "|i1", "<i2", "<u2", "<f2", "<i4", "<u4", "<f4", "<i8", "<u8", "<f8"})


class Malformed(Exception):
    """What came is no message."""


class Gone(Exception):
    """The other side has closed the line, or has ended."""


class Message(NamedTuple):
    """`descriptor` is one that came with it; whoever receives the message closes it."""

    fields: dict[str, Any]
    arrays: list[Array]
    descriptor: int | None = None


class Channel:
    """One end of a line between two processes. A deadline is a moment of `time.monotonic()`.

    Raises Gone, and TimeoutError once the deadline has passed; the line is of no use after that.
    """

    def __init__(self, line: socket.socket, *, max_bytes: int = 1 << 62, takes_descriptors: bool = False) -> None:
        self._line = line
        self._max_bytes = max_bytes
        self._takes_descriptors = takes_descriptors

    def fileno(self) -> int:
        return self._line.fileno()

    @property
    def is_quiet(self) -> bool:
        """Whether the other side is there and has said nothing."""
        self._line.settimeout(0)
        try:
            self._line.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        self._line.close()

    def send(
        self,
        fields: dict[str, Any],
        arrays: Iterable[Array] = (),
        *,
        descriptor: int | None = None,
        deadline: float | None = None,
    ) -> None:
        ordered = [np.ascontiguousarray(array) for array in arrays]
        described = [(array.dtype.newbyteorder("<").str, array.shape) for array in ordered]
        text = json.dumps({"fields": fields, "arrays": described}).encode()
        head = _HEAD.pack(len(text), sum(array.nbytes for array in ordered))
        ancillary = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))]
        try:
            self._send(head, ancillary, deadline)
            self._send(text, [], deadline)
            for array in ordered:
                self._send(_bytes_of(array), [], deadline)
        except TimeoutError:
            raise
        except OSError as error:
            raise Gone from error

    def receive(self, *, deadline: float | None = None) -> Message:
        """Raises Malformed for what is no message, or is longer than `max_bytes`."""
        head, descriptor = self._head(deadline)
        try:
            text_bytes, array_bytes = _HEAD.unpack(head)
            if text_bytes > _MAX_JSON_BYTES or array_bytes > self._max_bytes:
                raise Malformed(f"a message of {text_bytes} and {array_bytes} bytes")
            fields, described = _parsed(self._exactly(text_bytes, deadline))
            return Message(fields, _cut(self._exactly(array_bytes, deadline), described), descriptor)
        except BaseException:
            if descriptor is not None:
                os.close(descriptor)
            raise

    def _head(self, deadline: float | None) -> tuple[bytes, int | None]:
        descriptors: list[int] = []
        if not self._takes_descriptors:
            return bytes(self._exactly(_HEAD.size, deadline)), None
        self._wait_until(deadline)
        try:
            head, descriptors, _, _ = socket.recv_fds(self._line, _HEAD.size, 1)
        except TimeoutError:
            raise
        except OSError as error:
            raise Gone from error
        if not head:
            raise Gone
        return head + self._exactly(_HEAD.size - len(head), deadline), descriptors[0] if descriptors else None

    def _exactly(self, count: int, deadline: float | None) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            self._wait_until(deadline)
            try:
                taken = self._line.recv_into(view)
            except TimeoutError:
                raise
            except OSError as error:
                raise Gone from error
            if not taken:
                raise Gone
            view = view[taken:]
        return data

    def _send(self, data: bytes | memoryview, ancillary: list[tuple[int, int, bytes]], deadline: float | None) -> None:
        view = memoryview(data)
        while view:
            self._wait_until(deadline)
            view = view[self._line.sendmsg([view], ancillary) :]
            ancillary = []

    def _wait_until(self, deadline: float | None) -> None:
        # Without a deadline the socket is left as it is: a child may not change it any more.
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._line.settimeout(left)


def line() -> tuple[socket.socket, socket.socket]:
    """Both ends of a new line; children of other programs do not inherit them."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def _bytes_of(array: Array) -> memoryview:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return little.reshape(-1).view(np.uint8).data


def _parsed(text: bytearray) -> tuple[dict[str, Any], list[tuple[str, tuple[int, ...]]]]:
    try:
        match json.loads(text):
            case {"fields": dict(fields), "arrays": list(described)}:
                return fields, [_described(*each) for each in described]
    except (ValueError, TypeError, RecursionError):
        pass
    raise Malformed("a message that is not in the agreed form")


def _described(dtype: object, shape: object) -> tuple[str, tuple[int, ...]]:
    if dtype not in _DTYPES or not isinstance(shape, list) or len(shape) > 32:
        raise TypeError
    if any(type(size) is not int or not 0 <= size < 2**48 for size in shape):
        raise TypeError
    return str(dtype), tuple(shape)


def _cut(data: bytearray, described: Sequence[tuple[str, tuple[int, ...]]]) -> list[Array]:
    arrays, start = [], 0
    for dtype, shape in described:
        count = math.prod(shape)
        if start + count * np.dtype(dtype).itemsize > len(data):
            raise Malformed("an array that ends after the message")
        try:
            arrays.append(np.frombuffer(data, dtype, count, start).reshape(shape))
        except ValueError as error:  # NumPy bounds a shape even where a 0 in it leaves nothing
            raise Malformed(f"an array of shape {shape}") from error
        start += arrays[-1].nbytes
    if start != len(data):
        raise Malformed("a message that goes on after its arrays")
    return arrays
