"""The header of an encoded file: it begins with what was done, so that a file is known by its first bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from folkmoot.errors import InvalidFile, InvalidValue
from folkmoot.tensors.encodings.encoding import Encoding
from folkmoot.tensors.encodings.layout import EXACT, Layout
from folkmoot.tensors.schema import METADATA, Schema, TensorSpec, is_float

_MARK = "folkmoot.encoding"
_VERSION = "1"
_TENSOR = "tensor/"
_START = f'{{"{METADATA}":{{"{_MARK}":'.encode()
_SHA256 = re.compile("[0-9a-f]{64}")
_SPEC = re.compile("[A-Z0-9]{1,8}( [0-9]{1,19})*")


def begins_header(head: bytes) -> bool:
    """Whether a safetensors file with these first bytes is an encoded one."""
    return head[8:].startswith(_START)


HEAD_BYTES = 8 + len(_START)


@dataclass(frozen=True)
class Description:
    """Everything about an encoded update but its numbers; `base` is the SHA-256 of the model that it differs from."""

    encoding: Encoding
    base: str | None
    layouts: Mapping[str, Layout]

    @property
    def schema(self) -> Schema:
        """Of the update, once it is decoded."""
        return Schema(layout.spec for layout in self.layouts.values())

    @property
    def num_bytes(self) -> int:
        """The size of the parts, without the header."""
        return sum(part.num_bytes for part in self.parts())

    def header(self) -> bytes:
        entries: dict[str, object] = {METADATA: dict(self.metadata())}
        start = 0
        for part in self.parts():
            stop = start + part.num_bytes
            entries[part.name] = {"dtype": part.dtype, "shape": part.shape, "data_offsets": (start, stop)}
            start = stop
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def parts(self) -> Iterator[TensorSpec]:
        for layout in self.layouts.values():
            yield from layout.parts()

    def metadata(self) -> Iterator[tuple[str, str]]:
        yield _MARK, _VERSION
        yield "values", self.encoding.values
        yield "block", str(self.encoding.block)
        if self.encoding.top_k is not None:
            yield "top_k", repr(float(self.encoding.top_k))
        if self.base is not None:
            yield "base", self.base
        for layout in self.layouts.values():
            if not layout.is_exact:
                yield _TENSOR + layout.spec.name, " ".join(map(str, (layout.spec.dtype, *layout.spec.shape)))


def parse_description(metadata: Mapping[str, str], parts: Sequence[TensorSpec]) -> Description:
    """Read what the file says of itself; raises InvalidFile unless it has exactly the parts that this asks for."""
    facts = dict(metadata)
    encoded = {key: facts.pop(key) for key in list(facts) if key.startswith(_TENSOR)}
    encoding, base = _encoding(facts), facts.get("base")
    layouts = [Layout(_spec(key.removeprefix(_TENSOR), text), encoding, False) for key, text in encoded.items()]
    layouts += [Layout(spec, encoding, True) for spec in _exact(parts)]
    description = Description(encoding, base, {layout.spec.name: layout for layout in layouts})
    if len(description.layouts) < len(layouts):
        raise InvalidFile("a tensor of the encoded update is there twice")
    if dict(description.metadata()) != metadata:  # so that there is one way to say each thing
        raise InvalidFile("the encoded update says something of itself that means nothing")
    _check_parts({part.name: part for part in description.parts()}, {part.name: part for part in parts})
    return description


def _encoding(facts: Mapping[str, str]) -> Encoding:
    if facts.get(_MARK) != _VERSION:
        raise InvalidFile(f"the update has the encoding version {facts.get(_MARK)!r}; taken is {_VERSION}")
    if "base" in facts and not _SHA256.fullmatch(facts["base"]):
        raise InvalidFile("the base of the encoded update is not a SHA-256 in hexadecimal")
    try:
        top_k = float(facts["top_k"]) if "top_k" in facts else None
        encoding = Encoding(facts["values"], int(facts["block"]), top_k, "base" in facts)
    except (KeyError, ValueError, InvalidValue):
        raise InvalidFile("the encoding is none that can be read") from None
    return encoding


def _spec(name: str, text: str) -> TensorSpec:
    if not _SPEC.fullmatch(text):
        raise InvalidFile(f"tensor {name!r} of the encoded update has no dtype and shape")
    dtype, *shape = text.split()
    spec = TensorSpec(name, dtype, tuple(map(int, shape)))
    if not is_float(spec.numpy_dtype):
        raise InvalidFile(f"tensor {name} is {dtype}, which is not to be encoded")
    return spec


def _exact(parts: Iterable[TensorSpec]) -> Iterator[TensorSpec]:
    for part in parts:
        role, _, name = part.name.partition("/")
        if role == EXACT:
            yield TensorSpec(name, part.dtype, part.shape)


def _check_parts(expected: Mapping[str, TensorSpec], actual: Mapping[str, TensorSpec]) -> None:
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            raise InvalidFile(f"the encoded update has no part {name}")
        if name not in expected:
            raise InvalidFile(f"the encoded update has a part {name} that belongs to nothing")
        wanted, part = expected[name], actual[name]
        if wanted != part:
            raise InvalidFile(f"the part {name} is {part.dtype} {part.shape}, expected {wanted.dtype} {wanted.shape}")
