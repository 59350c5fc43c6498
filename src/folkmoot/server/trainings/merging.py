"""All that a checkpoint's moments are merged of, by digests, and the one way to merge them: in the round, and later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from folkmoot.aggregation import Report, aggregate_files
from folkmoot.aggregation import Update as AggregationUpdate
from folkmoot.aggregation.builtin import fedavg
from folkmoot.errors import InvalidValue
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings.models import Round
from folkmoot.server.trainings.recipes import Checksums, names_files
from folkmoot.tensors import write_tensors
from folkmoot.tensors.schema import Schema


@dataclass(frozen=True)
class Part:
    """The moments of one participant."""

    participant: str
    sha256: str
    num_examples: int


@dataclass(frozen=True)
class Merging:
    """`inputs` are in the order of their summing; each weighs as much as it has examples."""

    inputs: Sequence[Part]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read what `as_json` wrote; raises InvalidValue for anything else."""
        try:
            merging = cls([Part(**each) for each in facts["inputs"]])
        except (KeyError, TypeError) as error:
            raise InvalidValue("this is no recipe of moments as a manifest has it") from error
        if not merging.inputs or not names_files(merging.files()):
            raise InvalidValue("the recipe of moments names a file by something other than a SHA-256, or none")
        return merging

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def files(self) -> Iterator[tuple[str, str]]:
        """The digest of each file that is needed, and what it is."""
        for each in self.inputs:
            yield each.sha256, f"moments of {each.participant}"


def merging_of(current: Round) -> Merging:
    """What the moments of the round's model are to be merged of now."""
    counted = current.statistics.with_examples()
    return Merging([Part(str(each.participant_id), each.sha256, each.num_examples) for each in counted])


def checksums_of(current: Round) -> Checksums:
    """Of the files that came in for the round, as they were then."""
    known = current.statistics.with_examples().values_list("sha256", "checksums")
    return {sha256: bytes(checksums) for sha256, checksums in known}


def carry_out(merging: Merging, output: Path, *, schema: Schema, checksums: Checksums) -> Report:
    """Write the mean, in the layout that all inputs have, to `output`; raises what `aggregate_files` raises."""
    storage = get_storage()
    sources = storage.sources([each.sha256 for each in merging.inputs])
    inputs = [
        AggregationUpdate(each.participant, source, each.num_examples, checksums=checksums.get(each.sha256, b""))
        for each, source in zip(merging.inputs, sources, strict=True)
    ]
    with storage.draft() as start:
        # A mean begins nowhere: these zeros have the layout of all.
        write_tensors(start, {spec.name: np.zeros(spec.shape, spec.numpy_dtype) for spec in schema})
        return aggregate_files(fedavg(), start, inputs, output)
