"""Where each tensor's values lie: in an update, in the model, in the strategy's state.

A canonical file has its tensors by dtype and name, so that those of the model are in one order in all of the files,
whatever lies between them. Neighbours in all files at once are taken as one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from folkmoot.aggregation.rules import Treatment
from folkmoot.errors import InvalidValue
from folkmoot.tensors import Schema
from folkmoot.tensors.checksums import BLOCK_BYTES
from folkmoot.tensors.schema import TensorSpec


@dataclass(frozen=True)
class Piece:
    """`count` values of one dtype that lie side by side in every file; the offsets are bytes from the files' starts.

    `model` is where they are in the model, for control variates nowhere (0); `states` where what belongs to them is
    in the file of the state, one offset for each of the strategy's states.
    """

    treatment: Treatment
    dtype: np.dtype[Any]
    count: int
    update: int
    model: int
    states: tuple[int, ...] = ()

    @property
    def num_bytes(self) -> int:
        return self.count * self.dtype.itemsize

    @property
    def state_dtype(self) -> np.dtype[Any]:
        return np.dtype("<f8") if self.dtype == np.dtype("<f8") else np.dtype("<f4")

    def from_value(self, first: int, count: int) -> Piece:
        """`count` values, from one of these on."""
        return replace(
            self,
            count=count,
            update=self.update + first * self.dtype.itemsize,
            model=self.model + first * self.dtype.itemsize if self.model else 0,
            states=tuple(each + first * self.state_dtype.itemsize for each in self.states),
        )

    def continues(self, other: Piece) -> bool:
        """Whether it begins where the other ends, everywhere, and is treated alike."""
        return other.from_value(other.count, self.count) == self


@dataclass(frozen=True)
class Block:
    """The stretch of an update that has one checksum, the `number`-th, and the pieces in it, in order."""

    number: int
    start: int
    size: int
    pieces: tuple[Piece, ...]


class Layout:
    """The files of one training: what an update has beside the model's tensors, and what the state consists of."""

    def __init__(
        self,
        model: Schema,
        treatment: Callable[[TensorSpec], Treatment],
        *,
        states: Sequence[str] = (),
        control_variate: str = "",
    ) -> None:
        self.model = model
        self._states = tuple(states)
        self._own = {spec.name: spec for spec in model}
        self._treatments = {spec.name: treatment(spec) for spec in model}
        merged = [spec for spec in model if self._treatments[spec.name] is Treatment.MERGE]
        self._of_control = {f"{control_variate}/{spec.name}": spec for spec in merged} if control_variate else {}
        if both := self._own.keys() & self._of_control.keys():
            raise InvalidValue(f"{min(both)} is a tensor of the model, and would be the name of a control variate")
        controls = [TensorSpec(name, spec.dtype, spec.shape) for name, spec in self._of_control.items()]
        self.update = Schema([*model, *controls]) if controls else model
        kept = [_state_spec(f"{state}/{spec.name}", spec) for state in states for spec in merged]
        self.state = Schema([*kept, *(_state_spec(each.name, each) for each in controls)])

    def blocks(self) -> Iterator[Block]:
        """Cut an update into the stretches that have a checksum each, in order."""
        start = data = len(self.update.header())
        pieces: list[Piece] = []
        for piece in self._within_blocks(data):
            if piece.update >= start + BLOCK_BYTES:
                yield _block(start, data, pieces)
                start, pieces = start + BLOCK_BYTES, []
            pieces.append(piece)
        if pieces:
            yield _block(start, data, pieces)

    def _within_blocks(self, data: int) -> Iterator[Piece]:
        """The runs, cut where a block ends."""
        for run in self._runs():
            first = 0
            while first < run.count:
                left = BLOCK_BYTES - (run.update + first * run.dtype.itemsize - data) % BLOCK_BYTES
                count = min(run.count - first, left // run.dtype.itemsize)
                yield run.from_value(first, count)
                first += count

    def _runs(self) -> Iterator[Piece]:
        """The pieces, as long as they can be."""
        run: Piece | None = None
        for piece in self._tensors():
            if run is not None and piece.continues(run):
                run = replace(run, count=run.count + piece.count)
                continue
            if run is not None:
                yield run
            run = piece
        if run is not None:
            yield run

    def _tensors(self) -> Iterator[Piece]:
        in_model, in_state = _offsets(self.model), _offsets(self.state)
        for name, offset in _offsets(self.update).items():
            spec = self._own.get(name) or self._of_control[name]
            if not spec.num_elements:
                continue
            if name not in self._own:
                yield Piece(Treatment.CONTROL, spec.numpy_dtype, spec.num_elements, offset, 0, (in_state[name],))
                continue
            treatment = self._treatments[name]
            states = self._states if treatment is Treatment.MERGE else ()
            places = tuple(in_state[f"{state}/{name}"] for state in states)
            yield Piece(treatment, spec.numpy_dtype, spec.num_elements, offset, in_model[name], places)


def _state_spec(name: str, spec: TensorSpec) -> TensorSpec:
    return TensorSpec(name, "F64" if spec.dtype == "F64" else "F32", spec.shape)


def _offsets(schema: Schema) -> dict[str, int]:
    header = len(schema.header())
    return {span.spec.name: header + span.start for span in schema.spans()}


def _block(start: int, data: int, pieces: list[Piece]) -> Block:
    size = pieces[-1].update + pieces[-1].num_bytes - start
    return Block((start - data) // BLOCK_BYTES, start, size, tuple(pieces))
