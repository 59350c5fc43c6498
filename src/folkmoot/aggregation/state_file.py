"""The strategy's state: a TensorFile that is read and written at the places where the model's values stand."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt

from folkmoot.tensors import Schema
from folkmoot.tensors.replacing import replacing
from folkmoot.tensors.tensor_file import WrittenFile, as_bytes


class StateWriter:
    """Takes values for any place of the file, whose digest is known only after it is complete."""

    def __init__(self, descriptor: int, num_bytes: int) -> None:
        self._descriptor = descriptor
        self._num_bytes = num_bytes
        self.written: WrittenFile | None = None

    def write(self, offset: int, values: npt.NDArray[Any]) -> None:
        rest = as_bytes(values)
        while rest:
            count = os.pwrite(self._descriptor, rest, offset)
            rest, offset = rest[count:], offset + count

    def finish(self) -> None:
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            self.written = WrittenFile(hashlib.file_digest(file, "sha256").hexdigest(), self._num_bytes)


@contextmanager
def writing_state(path: Path, schema: Schema) -> Iterator[StateWriter]:
    """The file appears at `path` when the block ends well, and durably; else nothing is left of it."""
    header = schema.header()
    with replacing(path) as file:
        file.write(header)
        file.flush()
        file.truncate(len(header) + schema.num_bytes)
        writer = StateWriter(file.fileno(), len(header) + schema.num_bytes)
        yield writer
        writer.finish()
