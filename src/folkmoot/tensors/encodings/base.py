"""What differences are differences to."""

from __future__ import annotations

from typing import NamedTuple, Self

from folkmoot.tensors.schema import Tensors
from folkmoot.tensors.tensor_file import canonical_sha256


class Base(NamedTuple):
    """The tensors that travel, as the round began with them, and the SHA-256 of their canonical TensorFile."""

    sha256: str
    tensors: Tensors

    @classmethod
    def of(cls, tensors: Tensors) -> Self:
        """Reads all of `tensors`, so that a model that is not the round's cannot be taken for it."""
        return cls(canonical_sha256(tensors), tensors)
