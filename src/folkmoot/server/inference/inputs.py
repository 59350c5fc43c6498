"""What is asked of a model, as an array: from nested lists, from a file, or from text that holds either."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from django.conf import settings

from folkmoot.errors import InvalidFile, InvalidValue, NonFinite, TooLarge, UnsupportedContainer
from folkmoot.server.inference.images import is_image, read_image
from folkmoot.server.storage import get_storage
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.tensors import formats
from folkmoot.tensors.formats import npy
from folkmoot.tensors.replacing import naming_full_disk
from folkmoot.tensors.schema import BFLOAT16

Array = npt.NDArray[Any]
Given = list[Any] | str | IncomingFile

KINDS = "a tensor as torch saves it, safetensors with one tensor, .npy, PNG or JPEG"
_HEAD_BYTES = 16
_MAX_DIMENSIONS = 32


def read_input(given: Given, *, channels: int | None) -> list[Array]:
    """The array that was meant; two where lists hold whole numbers alone, which JSON writes for floats too.

    An image gets so many channels. Raises InvalidInput naming model_input, TooLarge.
    """
    if isinstance(given, IncomingFile):
        return [_from_file(given.path, channels)]
    if isinstance(given, list):
        return _from_lists(given)
    if given.lstrip().startswith("["):
        return _from_lists(_parsed(given))
    return [_from_base64(given, channels)]


def _parsed(text: str) -> list[Any]:
    try:
        parsed: list[Any] = json.loads(text)
    except ValueError:
        raise InvalidValue("model_input begins like nested lists, and is not valid JSON") from None
    return parsed


def _from_lists(lists: list[Any]) -> list[Array]:
    _check_are_numbers(lists)
    try:
        array = np.asarray(lists)
    except (ValueError, OverflowError):  # ragged, or deeper than NumPy goes
        raise InvalidValue("model_input must be nested lists of numbers, those of one level equally long") from None
    if array.dtype.kind == "f":
        return [_checked(array.astype(np.float32) if np.abs(array).max(initial=0) < 3e38 else array)]
    if array.dtype.kind not in "iu":
        raise InvalidValue("model_input holds a whole number that is too large")
    return [_checked(array.astype(np.float32)), array]


def _check_are_numbers(lists: list[Any]) -> None:
    """Before NumPy sees them: it would give every number of an array the room of the longest text in it."""
    left = [lists]
    while left:
        kinds = set(map(type, values := left.pop()))
        if kinds == {list}:
            left += values
        elif not kinds <= {int, float}:
            raise InvalidValue("model_input must be nested lists of numbers, and has something else in them")


def _from_base64(text: str, channels: int | None) -> Array:
    try:
        data = base64.b64decode(text.encode().translate(None, b" \t\r\n"), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidValue(
            "model_input must be nested lists of numbers, or a file in base64; this is neither"
        ) from None
    with get_storage().draft() as draft:
        with naming_full_disk("the input"):
            draft.write_bytes(data)
        return _from_file(draft, channels)


def _from_file(path: Path, channels: int | None) -> Array:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    most = settings.MAX_INFERENCE_BYTES
    if is_image(head):
        return read_image(path, channels=channels, max_bytes=most)
    try:
        return _checked(_from_npy(path) if npy.is_npy(head) else _tensor(path, most))
    except UnsupportedContainer as error:
        raise UnsupportedContainer(f"model_input is no file that is taken here; taken are {KINDS}") from error
    except (InvalidFile, TooLarge) as error:
        raise type(error)(f"model_input: {error.message}") from error


def _tensor(path: Path, max_bytes: int) -> Array:
    return formats.open_tensor(path, limits=replace(settings.MODEL_FILE_LIMITS, max_bytes=max_bytes))


def _from_npy(path: Path) -> Array:
    data = path.read_bytes()
    header = npy.parse_npy_header("the array", data[: npy.MAX_PREFIX_BYTES])
    if len(data) != header.num_bytes:
        raise InvalidFile(f"the file has {len(data)} bytes; by its header, it is {header.num_bytes}")
    values = np.frombuffer(data, header.dtype, offset=header.size)
    return values.reshape(header.spec.shape, order="F" if header.fortran_order else "C")


def _checked(array: Array) -> Array:
    """The array in memory, little-endian, in C order."""
    if array.dtype == BFLOAT16:
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise InvalidValue(f"model_input is of dtype {array.dtype}; expected real numbers")
    if not array.size or array.ndim > _MAX_DIMENSIONS:
        raise InvalidValue(f"model_input has the shape {list(array.shape)}; expected numbers in at most 32 dimensions")
    if array.nbytes > settings.MAX_INFERENCE_BYTES:
        raise TooLarge(f"model_input has {array.nbytes:,} bytes; at most {settings.MAX_INFERENCE_BYTES:,} are taken")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise NonFinite("model_input holds NaN or infinity")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
