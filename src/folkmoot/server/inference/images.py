"""Images as tensors: float32 from 0 to 1, channels first, a batch of one, transparency left out, the rows as stored.

Grey if one channel is wanted, colour if three are, colour and transparency if four; otherwise as the image is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from folkmoot.errors import InvalidFile, TooLarge

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_FORMATS = ("PNG", "JPEG")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_GREY = ("1", "L", "LA", "La")


def is_image(head: bytes) -> bool:
    return head.startswith((PNG, JPEG))


def read_image(path: Path, *, channels: int | None, max_bytes: int) -> npt.NDArray[Any]:
    """Shape (1, channels, height, width). Raises TooLarge by the header alone, InvalidFile for what is damaged."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _check_size(image, max_bytes)
            image.verify()  # which reads on to the end of a PNG; loading stops at the last pixel
        with Image.open(path, formats=_FORMATS) as image:
            image.load()
            return _tensor(image, channels)
    except (TooLarge, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise TooLarge("model_input is an image with more pixels than are taken") from None
    except Exception as error:  # Pillow raises all kinds of things for bytes that were made to confuse it
        raise InvalidFile("model_input is an image that is damaged or not complete") from error


def _check_size(image: Image.Image, max_bytes: int) -> None:
    width, height = image.size
    num_bytes = width * height * (2 if image.mode.startswith("I") else 1) * max(len(image.getbands()), 3)
    if num_bytes > max_bytes:
        raise TooLarge(f"model_input is an image of {width} x {height} pixels; as many as fill {max_bytes:,} bytes")


def _tensor(image: Image.Image, channels: int | None) -> npt.NDArray[Any]:
    if image.mode.startswith("I"):
        return _deep_grey(image, channels)
    natural = "L" if image.mode in _GREY else "RGB"
    values = np.asarray(image.convert(_MODES.get(channels or 0, natural)), dtype=np.float32) / 255
    return _channels_first(values)


def _deep_grey(image: Image.Image, channels: int | None) -> npt.NDArray[Any]:
    """Of 16 bits: Pillow would cut off what does not fit into 8."""
    values = np.asarray(image).astype(np.float32) / 65535
    return _channels_first(np.stack([values] * (channels or 1), axis=-1))


def _channels_first(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    with_channels = values if values.ndim == 3 else values[:, :, np.newaxis]
    return np.ascontiguousarray(with_channels.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)
