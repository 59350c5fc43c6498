"""The header of a safetensors file, read strictly: every byte of the file has exactly one meaning."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from folkmoot.errors import InvalidFile, TooLarge
from folkmoot.tensors.limits import Limits
from folkmoot.tensors.schema import METADATA, Span, TensorSpec

_LENGTH_BYTES = 8
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Header:
    """`spans` are in the order of the file; `size` counts the bytes before the data."""

    spans: tuple[Span, ...]
    metadata: dict[str, str]
    size: int


def parse_header(file: bytes | memoryview, limits: Limits) -> Header:
    """Read the header of the whole file `file` and check that the tensors fill the rest without hole or overlap."""
    text = _text(file, limits)
    entries = _strict_json(text, limits)
    metadata = _metadata(entries.pop(METADATA, {}))
    if len(entries) > limits.max_tensors:
        raise TooLarge(f"the file has more than {limits.max_tensors} tensors")
    spans = sorted((_span(name, entry, limits) for name, entry in entries.items()), key=lambda span: span[1:])
    size = _LENGTH_BYTES + len(text)
    _check_contiguous(spans, len(file) - size)
    return Header(tuple(spans), metadata, size)


def _text(file: bytes | memoryview, limits: Limits) -> bytes:
    length = int.from_bytes(file[:_LENGTH_BYTES], "little")
    if length > limits.max_header_bytes:
        raise TooLarge(f"the header claims {length} bytes; at most {limits.max_header_bytes} are taken")
    text = bytes(file[_LENGTH_BYTES : _LENGTH_BYTES + length])
    if len(text) < length:
        raise InvalidFile("the file ends within its header")
    if not text.startswith(b"{"):
        raise InvalidFile("the header is not a JSON object")
    return text


def _strict_json(text: bytes, limits: Limits) -> dict[str, Any]:
    # A small text of empty lists would take many times its size once parsed.
    if text.count(b"[") + text.count(b"{") > 8 * limits.max_tensors:
        raise TooLarge(f"the file has more than {limits.max_tensors} tensors")
    try:
        entries: dict[str, Any] = json.loads(
            text.decode(),
            object_pairs_hook=_without_duplicates,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except (ValueError, RecursionError):
        raise InvalidFile("the header is not valid JSON") from None
    return entries


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise InvalidFile("a name occurs twice in the header")
    return unique


def _refuse_number(text: str) -> NoReturn:
    raise InvalidFile("the header holds a number that is not a whole one")


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise InvalidFile(f"{METADATA} must map text to text")
    if any(_SURROGATE.search(text) for pair in value.items() for text in pair):
        raise InvalidFile(f"{METADATA} holds text that is not Unicode")
    return value


def _span(name: str, entry: Any, limits: Limits) -> Span:
    if len(name) > limits.max_name_length:
        raise TooLarge(f"a tensor's name is longer than {limits.max_name_length} characters")
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, stop]} if len(entry) == 3:
            pass
        case _:
            raise InvalidFile(f"tensor {name!r} needs exactly a dtype, a shape and two data_offsets")
    # bool is an int to Python, and is not one to JSON
    if any(type(number) is not int or number < 0 for number in (*shape, start, stop)):
        raise InvalidFile(f"tensor {name!r} has a shape or an offset that is no natural number")
    spec = TensorSpec(name, dtype, tuple(shape))
    if stop - start != spec.num_bytes:
        raise InvalidFile(f"tensor {name} takes {spec.num_bytes} bytes, its offsets say {stop - start}")
    return Span(spec, start, stop)


def _check_contiguous(spans: list[Span], num_bytes: int) -> None:
    position = 0
    for span in spans:
        if span.start != position:
            raise InvalidFile(f"tensor {span.spec.name} begins at byte {span.start}, expected {position}")
        position = span.stop
    if position != num_bytes:
        raise InvalidFile(f"the tensors take {position} bytes, the file has {num_bytes} for them")
