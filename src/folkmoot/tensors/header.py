"""The header of a safetensors file, read strictly: every byte of the file has exactly one meaning.

The text is taken apart entry by entry, each as small as an entry may be: parsed at once, a header of 16 MB can be
made to take twenty times its size in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from folkmoot.errors import InvalidFile, TooLarge
from folkmoot.tensors.limits import Limits
from folkmoot.tensors.schema import DTYPES, METADATA, Span, TensorSpec

_LENGTH_BYTES = 8
_SURROGATE = re.compile("[\ud800-\udfff]")

_STRING = rb'"(?:[^"\\\x00-\x1f]|\\.)*+"'
_SPACE = rb"[ \t\n\r]*+"
_OPENING = re.compile(rb"\{" + _SPACE)
_CLOSING = re.compile(rb"\}")
_NAME = re.compile(rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE)
_TEXT = re.compile(_STRING)
# Neither braces nor more than this are in the entry of any tensor that can be.
_ENTRY = re.compile(rb"\{[^{}]{0,4096}\}")
_NEXT = re.compile(_SPACE + rb"(?:," + _SPACE + rb"(?=\")|(\}))")
_END = re.compile(_SPACE)

_DTYPE_NAMES = {name: name for name in DTYPES}  # one text for all tensors, instead of one for each


@dataclass(frozen=True)
class Header:
    """`spans` are in the order of the file; `size` counts the bytes before the data."""

    spans: tuple[Span, ...]
    metadata: dict[str, str]
    size: int


def parse_header(file: bytes | memoryview, limits: Limits) -> Header:
    """Read the header of the whole file `file` and check that the tensors fill the rest without hole or overlap."""
    text = _text(file, limits)
    reader = _Reader(text, limits)
    spans = sorted(reader.spans(), key=lambda span: span[1:])
    _check_names(spans)
    _check_contiguous(spans, len(file) - len(text))
    return Header(tuple(spans), reader.metadata, len(text))


def _text(file: bytes | memoryview, limits: Limits) -> memoryview:
    """All bytes before the data, the length included."""
    length = int.from_bytes(file[:_LENGTH_BYTES], "little")
    if length > limits.max_header_bytes:
        raise TooLarge(f"the header claims {length} bytes; at most {limits.max_header_bytes} are taken")
    text = memoryview(file)[: _LENGTH_BYTES + length]
    if len(text) < _LENGTH_BYTES + length:
        raise InvalidFile("the file ends within its header")
    return text


class _Reader:
    """Walks over the entries of a header; `metadata` is known after that."""

    def __init__(self, text: memoryview, limits: Limits) -> None:
        self.metadata: dict[str, str] = {}
        self._text = text
        self._limits = limits
        self._position = _LENGTH_BYTES

    def spans(self) -> Iterator[Span]:
        count, has_metadata = 0, False
        for name in self._names():
            if name == METADATA:
                if has_metadata:
                    raise InvalidFile("a name occurs twice in the header")
                has_metadata = True
                self._read_metadata()
                continue
            count += 1
            if count > self._limits.max_tensors:
                raise TooLarge(f"the file has more than {self._limits.max_tensors} tensors")
            yield _span(name, self._entry(name), self._limits)
        if _END.match(self._text, self._position).end() != len(self._text):  # type: ignore[union-attr]
            raise InvalidFile("something follows the object in the header")

    def _names(self) -> Iterator[str]:
        """Yield the names of an object; whoever asks for the next one has read the value of the last."""
        self._take(_OPENING)
        if found := _CLOSING.match(self._text, self._position):
            self._position = found.end()
            return
        while True:
            raw = self._take(_NAME)[1]
            # Of UTF-8, or of escapes, before they are decoded.
            if len(raw) > 12 * self._limits.max_name_length:
                raise TooLarge(f"a tensor's name is longer than {self._limits.max_name_length} characters")
            yield _json(raw)
            if self._take(_NEXT)[1]:
                return

    def _entry(self, name: str) -> Any:
        found = _ENTRY.match(self._text, self._position)
        if found is None:
            raise _no_entry(name)
        self._position = found.end()
        return _json(found[0])

    def _read_metadata(self) -> None:
        # In memory a character may take four times as much.
        begin, most = self._position, self._limits.max_header_bytes // 2
        for name in self._names():
            if name in self.metadata:
                raise InvalidFile("a name occurs twice in the header")
            text = _TEXT.match(self._text, self._position)
            if text is None:
                raise InvalidFile(f"{METADATA} must map text to text")
            self._position = text.end()
            if self._position - begin > most or len(self.metadata) == self._limits.max_tensors:
                raise TooLarge(f"{METADATA} has more than {self._limits.max_tensors} entries or {most} bytes")
            self.metadata[name] = _json(text[0])
        if any(_SURROGATE.search(text) for pair in self.metadata.items() for text in pair):
            raise InvalidFile(f"{METADATA} holds text that is not Unicode")

    def _take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        found = pattern.match(self._text, self._position)
        if found is None:
            raise InvalidFile("the header is not a JSON object of tensors")
        self._position = found.end()
        return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise InvalidFile("a name occurs twice in the header")
    return unique


def _refuse_number(text: str) -> NoReturn:
    raise InvalidFile("the header holds a number that is not a whole one")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_float=_refuse_number, parse_constant=_refuse_number
)


def _json(text: bytes) -> Any:
    try:
        return _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        raise InvalidFile("the header is not valid JSON") from None


def _no_entry(name: str) -> InvalidFile:
    return InvalidFile(f"tensor {name!r} needs exactly a dtype, a shape and two data_offsets")


def _span(name: str, entry: Any, limits: Limits) -> Span:
    if len(name) > limits.max_name_length:
        raise TooLarge(f"a tensor's name is longer than {limits.max_name_length} characters")
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, stop]} if len(entry) == 3:
            pass
        case _:
            raise _no_entry(name)
    # bool is an int to Python, and is not one to JSON
    if any(type(number) is not int or number < 0 for number in (*shape, start, stop)):
        raise InvalidFile(f"tensor {name!r} has a shape or an offset that is no natural number")
    spec = TensorSpec(name, _DTYPE_NAMES.get(dtype, dtype), tuple(shape))
    if stop - start != spec.num_bytes:
        raise InvalidFile(f"tensor {name} takes {spec.num_bytes} bytes, its offsets say {stop - start}")
    return Span(spec, start, stop)


def _check_names(spans: list[Span]) -> None:
    if len({span.spec.name for span in spans}) < len(spans):
        raise InvalidFile("a name occurs twice in the header")


def _check_contiguous(spans: list[Span], num_bytes: int) -> None:
    position = 0
    for span in spans:
        if span.start != position:
            raise InvalidFile(f"tensor {span.spec.name} begins at byte {span.start}, expected {position}")
        position = span.stop
    if position != num_bytes:
        raise InvalidFile(f"the tensors take {position} bytes, the file has {num_bytes} for them")
