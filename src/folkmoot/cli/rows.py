"""What a model is asked, read from a file on this machine."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.cli.extras import needs
from folkmoot.errors import InvalidFile, InvalidValue, NonFinite
from folkmoot.tensors.formats import open_tensor
from folkmoot.tensors.schema import BFLOAT16

IMAGES = (".png", ".jpg", ".jpeg")
MAX_IMAGE_BYTES = 2**30


def read_rows(file: Path) -> npt.NDArray[Any]:
    """The array in a .csv, .npy or image file, by its ending, or else in a file of one tensor; raises InvalidInput."""
    match file.suffix.lower():
        case ".csv":
            rows = read_csv(file)
        case ".npy":
            rows = _read_npy(file)
        case ending if ending in IMAGES:
            rows = _read_image(file)
        case _:
            rows = open_tensor(file)
    if rows.dtype == BFLOAT16:
        rows = rows.astype(np.float32)
    if rows.dtype.kind not in "biuf" or not rows.ndim or not rows.size:
        shape = list(rows.shape)
        raise InvalidValue(f"{file.name} has {rows.dtype} of the shape {shape}; expected rows of real numbers")
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        raise NonFinite(f"{file.name} holds NaN or infinity")
    return rows


def read_csv(file: Path) -> npt.NDArray[np.float32]:
    """One row for each line, (rows, columns)."""
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of no rows, which are refused anyway
            return np.loadtxt(file, dtype=np.float32, delimiter=",", ndmin=2, encoding="utf-8-sig")
    except ValueError as error:
        reason = str(error).partition(";")[0].rstrip(".")
        raise InvalidFile(
            f"{file.name} must hold numbers alone, as many in every line, with commas between them: {reason}"
        ) from error


def _read_npy(file: Path) -> npt.NDArray[Any]:
    try:
        with file.open("rb") as opened:
            rows: npt.NDArray[Any] = np.lib.format.read_array(opened, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InvalidFile(f"{file.name} is no .npy file of numbers: {error}") from error
    return rows


def _read_image(file: Path) -> npt.NDArray[Any]:
    with needs("server"):
        from folkmoot.server.inference.images import read_image
    return read_image(file, channels=None, max_bytes=MAX_IMAGE_BYTES)
