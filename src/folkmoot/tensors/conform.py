"""From what a participant sent to what a round takes, where there is no doubt about what was meant."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from folkmoot.errors import SchemaMismatch
from folkmoot.tensors.layers import Selected
from folkmoot.tensors.schema import Schema, Tensors, TensorSpec, blocks_of, check_fits
from folkmoot.tensors.tensor_file import as_bytes


def conform(sent: Tensors, wanted: Schema, model: Schema) -> Tensors:
    """`sent` as the `wanted` tensors of `model`; `sent` itself if it is these already.

    Tensors of the model that do not travel are left out: many programs send all they have. A float32 tensor
    stands for a bfloat16 one, which NumPy's own files cannot hold. Raises SchemaMismatch for all other differences.
    """
    schema = Schema.of(sent)
    if schema == wanted:
        return sent
    described = Schema(_meant(schema, wanted, model))
    check_fits(wanted, described)
    return Selected(sent, described)


def check_tied(tensors: Tensors, tied: Sequence[Sequence[str]]) -> None:
    """Raise SchemaMismatch if names that are one tensor in the model have different values here."""
    for first, *others in tied:
        for other in others:
            if first in tensors and other in tensors and not _are_equal(tensors, first, other):
                raise SchemaMismatch(f"{first} and {other} are one tensor in the model, and differ in the update")


def _are_equal(tensors: Tensors, first: str, second: str) -> bool:
    return _digest(tensors, first) == _digest(tensors, second)


def _digest(tensors: Tensors, name: str) -> bytes:
    # Two streams of blocks cannot be compared side by side: they may be cut at other places.
    digest = hashlib.sha256()
    for block in blocks_of(tensors, name):
        digest.update(as_bytes(block))
    return digest.digest()


def _meant(schema: Schema, wanted: Schema, model: Schema) -> Iterator[TensorSpec]:
    travelling = {spec.name: spec for spec in wanted}
    staying = {spec.name for spec in model} - travelling.keys()
    for spec in schema:
        if spec.name in staying:
            continue
        target = travelling.get(spec.name)
        if target is not None and (target.dtype, spec.dtype) == ("BF16", "F32"):
            yield TensorSpec(spec.name, "BF16", spec.shape)
        else:
            yield spec
