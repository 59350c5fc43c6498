"""Names that are one tensor in the model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from folkmoot.errors import SchemaMismatch
from folkmoot.tensors.schema import Tensors, blocks_of
from folkmoot.tensors.tensor_file import as_bytes


def check_tied(tensors: Tensors, tied: Sequence[Sequence[str]], *, what: str = "update") -> None:
    """Raise SchemaMismatch if names that are one tensor in the model have different values here."""
    for names in tied:
        digests = {name: _digest(tensors, name) for name in names if name in tensors}
        first = next(iter(digests), "")
        for other, digest in digests.items():
            if digest != digests[first]:
                raise SchemaMismatch(f"{first} and {other} are one tensor in the model, and differ in the {what}")


def _digest(tensors: Tensors, name: str) -> bytes:
    # Two streams of blocks cannot be compared side by side: they may be cut at other places.
    digest = hashlib.sha256()
    for block in blocks_of(tensors, name):
        digest.update(as_bytes(block))
    return digest.digest()
