"""safetensors: a JSON header and the bare values."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from folkmoot.tensors.array_blocks import array_blocks
from folkmoot.tensors.limits import TRUSTED, Limits
from folkmoot.tensors.replacing import replacing
from folkmoot.tensors.schema import Schema, Tensors, check_fits
from folkmoot.tensors.tensor_file import TensorFile, WrittenFile, write_tensors

NAME = "safetensors"
EXTENSION = ".safetensors"


def recognise(head: bytes) -> bool:
    return head[8:9] == b"{"


def read(path: Path, limits: Limits) -> TensorFile:
    return TensorFile.open(path, limits=limits)


def export(tensors: Tensors, output: Path) -> WrittenFile:
    """Write a canonical TensorFile."""
    return write_tensors(output, tensors)


def write(template: Path, tensors: Tensors, output: Path) -> WrittenFile:
    """Write the template's header, order and metadata included, and then the values of `tensors`."""
    original = TensorFile.open(template, limits=TRUSTED)
    check_fits(original.schema, Schema.of(tensors), what="checkpoint")
    digest = hashlib.sha256(original.header)
    with replacing(output) as file:
        file.write(original.header)
        for name in original.names_in_file_order:
            for block in array_blocks(np.asarray(tensors[name]), original[name].dtype):
                values = block.view(np.uint8).data
                digest.update(values)
                file.write(values)
    return WrittenFile(digest.hexdigest(), original.num_bytes)
