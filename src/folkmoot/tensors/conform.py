"""From what a participant sent to what a round takes, where there is no doubt about what was meant."""

from __future__ import annotations

from collections.abc import Iterator

from folkmoot.tensors.layers import Selected
from folkmoot.tensors.schema import Schema, Tensors, TensorSpec, check_fits


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
