"""The header of a .npy file, read without evaluating or unpickling anything.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import ast
import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from folkmoot.errors import InvalidFile, TooLarge
from folkmoot.tensors.schema import TensorSpec, dtype_name

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
_MAX_HEADER_BYTES = 1 << 16
MAX_PREFIX_BYTES = len(_MAGIC) + 2 + 4 + _MAX_HEADER_BYTES

# One pair of parentheses and no operators: what matches is a flat literal, if it is one at all.
_FLAT_LITERAL = re.compile(r"\{[\w\s'\"<>|=:,]*\([\d\s,]*\)[\w\s'\"<>|=:,]*\}\s*", re.ASCII)
_PLAIN_DTYPE = re.compile(r"[<>|=]?[a-zA-Z]\d{1,3}")


@dataclass(frozen=True)
class NpyHeader:
    """`dtype` keeps the byte order of the file; `size` counts the bytes before the data."""

    spec: TensorSpec
    dtype: np.dtype[Any]
    fortran_order: bool
    size: int

    @property
    def num_bytes(self) -> int:
        """The size of header and data together."""
        return self.size + self.spec.num_bytes


def is_npy(head: bytes) -> bool:
    """Whether a file that begins so is a .npy file, by itself."""
    return head.startswith(_MAGIC)


def parse_npy_header(name: str, prefix: bytes) -> NpyHeader:
    """Read the header at the start of `prefix`, which has MAX_PREFIX_BYTES or is the whole file."""
    text, size = _text(name, prefix)
    fields = _flat_literal(name, text)
    match fields:
        case {"descr": str(descr), "fortran_order": bool(fortran_order), "shape": tuple(shape)} if len(fields) == 3:
            dtype = _dtype(name, descr)
            return NpyHeader(TensorSpec(name, dtype_name(dtype), shape), dtype, fortran_order, size)
    raise _no_array(name)


def npy_prefix(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The bytes before the values of a C-ordered array, as NumPy writes them."""
    prefix = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(prefix, fields)
    return prefix.getvalue()


def _text(name: str, prefix: bytes) -> tuple[str, int]:
    if prefix[:6] != _MAGIC or len(prefix) < 8 or prefix[6] not in _LENGTH_BYTES or prefix[7]:
        raise _no_array(name)
    start = 8 + _LENGTH_BYTES[prefix[6]]
    length = int.from_bytes(prefix[8:start], "little")
    if length > _MAX_HEADER_BYTES:
        raise TooLarge(f"the header of {name} has more than {_MAX_HEADER_BYTES} bytes")
    text = prefix[start : start + length]
    if len(text) < length:
        raise InvalidFile(f"{name} ends within its header")
    return text.decode("latin-1"), start + length


def _flat_literal(name: str, text: str) -> Any:
    if "[" in text:
        raise InvalidFile(f"{name} has a structured dtype; only plain numbers are taken")
    if not _FLAT_LITERAL.fullmatch(text):
        raise _no_array(name)
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise _no_array(name) from None


def _dtype(name: str, descr: str) -> np.dtype[Any]:
    if "O" in descr:
        raise InvalidFile(f"{name} holds Python objects; only plain numbers are taken")
    if not _PLAIN_DTYPE.fullmatch(descr):
        raise InvalidFile(f"{name} has the dtype {descr!r}; only plain numbers are taken")
    try:
        return np.dtype(descr)
    except (TypeError, ValueError):
        raise InvalidFile(f"{name} has the dtype {descr!r}; only plain numbers are taken") from None


def _no_array(name: str) -> InvalidFile:
    return InvalidFile(f"{name} is not a NumPy array in the .npy format")
