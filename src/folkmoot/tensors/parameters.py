"""How many parameters a model has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from folkmoot.tensors.schema import Schema, TensorSpec


class Parameters(NamedTuple):
    """Numbers; `trainable` is None where the format does not tell of each tensor whether it is trained."""

    total: int
    trainable: int | None


def count_parameters(schema: Schema, tied: Sequence[Sequence[str]], trainable: Mapping[str, bool]) -> Parameters:
    """Count as frameworks do: tensors that are one and the same count once."""
    again = {name for names in tied for name in names[1:]}
    once = [spec for spec in schema if spec.name not in again]
    if any(spec.name not in trainable for spec in schema):
        return Parameters(_num_elements(once), None)
    return Parameters(_num_elements(once), _num_elements(spec for spec in once if trainable[spec.name]))


def _num_elements(specs: Iterable[TensorSpec]) -> int:
    return sum(spec.num_elements for spec in specs)
