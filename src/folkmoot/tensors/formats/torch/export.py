"""A torch file made from nothing but tensors: a state_dict such as torch.save would write, always the same bytes."""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.tensors.array_blocks import array_blocks
from folkmoot.tensors.replacing import replacing
from folkmoot.tensors.schema import Schema, Tensors, TensorSpec
from folkmoot.tensors.tensor_file import WrittenFile

_ROOT = "archive"
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)
_ALIGNMENT = 64
_LOCAL_HEADER_BYTES = 30
_ZIP64_EXTRA_BYTES = 20
_PADDING_ID = b"FB"  # torch pads in the same way

_STORAGES = {
    "BOOL": "BoolStorage",
    "U8": "ByteStorage",
    "I8": "CharStorage",
    "I16": "ShortStorage",
    "F16": "HalfStorage",
    "BF16": "BFloat16Storage",
    "I32": "IntStorage",
    "F32": "FloatStorage",
    "F64": "DoubleStorage",
    "I64": "LongStorage",
}
# These have no class of storage: torch saves them as bytes and says the dtype beside them.
_UNTYPED = {"U16": "uint16", "U32": "uint32", "U64": "uint64"}


def write_state_dict(tensors: Tensors, output: Path) -> WrittenFile:
    """Write the tensors in the order of `tensors`, each in a storage of its own, a block at a time."""
    specs = {spec.name: spec for spec in Schema.of(tensors)}
    ordered = [specs[name] for name in tensors]
    return _write_archive(_state_dict_pickle(ordered), ordered, tensors, output)


def write_tensor(tensor: npt.NDArray[Any], output: Path) -> WrittenFile:
    """Write one tensor by itself, a block at a time."""
    spec = TensorSpec.of("tensor", tensor)
    return _write_archive(b"\x80\x02" + _tensor(0, spec) + b".", [spec], {spec.name: tensor}, output)


def _write_archive(pickle: bytes, ordered: Sequence[TensorSpec], tensors: Tensors, output: Path) -> WrittenFile:
    with replacing(output) as file:
        with zipfile.ZipFile(file, "w") as archive:
            _write(archive, file, "data.pkl", [pickle])
            _write(archive, file, ".format_version", [b"1"])
            _write(archive, file, ".storage_alignment", [str(_ALIGNMENT).encode()])
            _write(archive, file, "byteorder", [b"little"])
            for key, spec in enumerate(ordered):
                _write(archive, file, f"data/{key}", _blocks(tensors[spec.name], spec), spec.num_bytes)
            _write(archive, file, "version", [b"3\n"])
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return WrittenFile(digest, file.tell())


def _blocks(tensor: npt.NDArray[Any], spec: TensorSpec) -> Iterator[memoryview]:
    for block in array_blocks(np.asarray(tensor), spec.numpy_dtype):
        yield block.view(np.uint8).data


def _write(
    archive: zipfile.ZipFile, file: BufferedRandom, path: str, blocks: Iterable[bytes | memoryview], size: int = 0
) -> None:
    entry = zipfile.ZipInfo(f"{_ROOT}/{path}", _FIRST_DATE)
    entry.file_size = size  # lets zipfile decide whether it needs the 64-bit fields
    entry.extra = _padding(file.tell() + _LOCAL_HEADER_BYTES + len(entry.filename), wide=_is_wide(entry))
    with archive.open(entry, "w") as member:
        for block in blocks:
            member.write(block)


def _is_wide(entry: zipfile.ZipInfo) -> bool:
    return entry.file_size * 1.05 > zipfile.ZIP64_LIMIT  # the very rule of zipfile, which adds another field then


def _padding(position: int, *, wide: bool) -> bytes:
    """An extra field so long that what follows it is aligned as torch aligns it."""
    shortest = len(_PADDING_ID) + 2
    length = -(position + shortest + _ZIP64_EXTRA_BYTES * wide) % _ALIGNMENT
    return _PADDING_ID + struct.pack("<H", length) + bytes(length)


def _state_dict_pickle(specs: Sequence[TensorSpec]) -> bytes:
    """The pickle, of protocol 2, of an OrderedDict of tensors whose storages are numbered from 0."""
    entries = (_text(spec.name) + _tensor(key, spec) for key, spec in enumerate(specs))
    return b"\x80\x02" + _ORDERED_DICT + b"(" + b"".join(entries) + b"u."


def _tensor(key: int, spec: TensorSpec) -> bytes:
    """A call of torch's function for it: storage, offset, size, stride, requires_grad, hooks, perhaps the dtype."""
    untyped = _UNTYPED.get(spec.dtype)
    function = "_rebuild_tensor_v3" if untyped else "_rebuild_tensor_v2"
    place = _integer(0) + _integers(spec.shape) + _integers(_contiguous(spec.shape))
    dtype = _global("torch", untyped) if untyped else b""
    return (
        _global("torch._utils", function) + b"(" + _storage(key, spec) + place + b"\x89" + _ORDERED_DICT + dtype + b"tR"
    )


def _storage(key: int, spec: TensorSpec) -> bytes:
    if spec.dtype in _UNTYPED:
        kind, count = _global("torch.storage", "UntypedStorage"), spec.num_bytes
    else:
        kind, count = _global("torch", _STORAGES[spec.dtype]), spec.num_elements
    return b"(" + _text("storage") + kind + _text(str(key)) + _text("cpu") + _integer(count) + b"tQ"


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * max(size, 1))
    return tuple(strides[: len(shape)])


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


_ORDERED_DICT = _global("collections", "OrderedDict") + b")R"


def _text(text: str) -> bytes:
    raw = text.encode()
    return b"X" + struct.pack("<L", len(raw)) + raw


def _integer(value: int) -> bytes:
    raw = value.to_bytes(9, "little", signed=True)
    return b"J" + struct.pack("<l", value) if value < 2**31 else b"\x8a\x09" + raw


def _integers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"
