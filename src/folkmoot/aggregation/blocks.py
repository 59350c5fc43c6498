"""The pass that merges: the same stretch of every update is read, merged and written before the next one is read.

Memory is a few blocks for each thread, however many updates there are. Blocks are independent of one another, so
that the result does not depend on who computes which, nor when.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from folkmoot.aggregation.arrays import Array, Float64s
from folkmoot.aggregation.kernels import Kernels
from folkmoot.aggregation.layout import Block, Layout, Piece
from folkmoot.aggregation.pieces import (
    Base,
    DeltaSum,
    Input,
    Kept,
    Largest,
    Ordered,
    PieceMerge,
    WeightedMean,
    WholeMean,
    next_values,
)
from folkmoot.aggregation.rounding import round_to
from folkmoot.aggregation.rules import Treatment
from folkmoot.aggregation.sources import Bytes, Reader, Reading, Scratch
from folkmoot.aggregation.strategy import CoordinatewiseAggregator, Strategy
from folkmoot.errors import AggregationFailed
from folkmoot.tensors.checksums import BLOCK_BYTES
from folkmoot.tensors.schema import is_float

_AT_ONCE = 4
"""So many updates are added up while the sum is in a processor's registers."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides what is made of the updates; `inputs` are in the order of their ids.

    With `of_deltas` the aggregate is the base plus the weighted sum of the deltas, else the weighted mean.
    """

    strategy: Strategy
    layout: Layout
    inputs: Sequence[Input]
    of_deltas: bool
    base: Reader
    state: Reader | None = None


@dataclass(frozen=True)
class Merged:
    """Values for the model, in its order, and for the state, these with their offsets from the file's start."""

    model: Sequence[Array]
    states: Sequence[tuple[int, Array]]


class Merging:
    """Computes the next model and the next state, some blocks at a time; called by several threads at once."""

    def __init__(self, plan: Plan, kernels: Kernels) -> None:
        self._plan, self._kernels = plan, kernels
        self._optimizer = plan.strategy.server_optimizer
        self._all_weights = sum((each.weight for each in plan.inputs), 0.0)
        self._scratch = Scratch()
        self._base = Base(plan.base, self._scratch)
        self._ordered: Ordered | None = None
        if isinstance(plan.strategy.aggregator, CoordinatewiseAggregator):
            self._ordered = Ordered(plan.strategy.aggregator, kernels, self._scratch, self._base)

    def __call__(self, blocks: Sequence[Block]) -> list[Merged]:
        start, stop = blocks[0].start, blocks[-1].start + blocks[-1].size
        for each in self._plan.inputs:
            each.reader.prepare(start, stop - start)
        return [self.merge(block) for block in blocks]

    def merge(self, block: Block) -> Merged:
        """Merge one block."""
        model: list[Array] = []
        states: list[tuple[int, Array]] = []
        # Overflow is found by looking at the result.
        with np.errstate(all="ignore"):
            merged = self._coordinates(block) if self._ordered else self._sums(block)
            for piece, values in zip(block.pieces, merged, strict=True):
                self._finish(piece, values, model, states)
        return Merged(model, states)

    def _sums(self, block: Block) -> list[Array]:
        merges = [self._merge_of(piece, total) for piece, total in self._totals(block)]
        for group in self._read(block):
            for piece, merge in zip(block.pieces, merges, strict=True):
                merge.add([(each, _values(raw, piece, block)) for each, raw in group])
        return [merge.result() for merge in merges]

    def _read(self, block: Block) -> Iterator[list[tuple[Input, Bytes]]]:
        """The block of every update, verified, some updates at a time."""
        for start in range(0, len(self._plan.inputs), _AT_ONCE):
            yield [
                (each, each.reader.block(block, self._scratch.bytes(f"update {number}", BLOCK_BYTES)))
                for number, each in enumerate(self._plan.inputs[start : start + _AT_ONCE])
            ]

    def _coordinates(self, block: Block) -> list[Array]:
        readings = [(each, Reading(each.reader, block)) for each in self._plan.inputs]
        merged = [self._next(piece, total, readings) for piece, total in self._totals(block)]
        for _, reading in readings:
            reading.finish()
        return merged

    def _next(self, piece: Piece, total: Float64s, readings: Sequence[tuple[Input, Reading]]) -> Array:
        if self._ordered and piece.treatment in (Treatment.MERGE, Treatment.MEAN):
            return self._ordered.merge(piece, readings, total)
        merge = self._merge_of(piece, total)
        for each, reading in readings:
            merge.add([(each, next_values(reading, piece, self._scratch))])
        return merge.result()

    def _totals(self, block: Block) -> Iterator[tuple[Piece, Float64s]]:
        """Each piece with where its values are added up."""
        totals = self._scratch.floats("totals", sum(piece.count for piece in block.pieces))
        totals.fill(0.0)
        end = 0
        for piece in block.pieces:
            end += piece.count
            yield piece, totals[end - piece.count : end]

    def _merge_of(self, piece: Piece, total: Float64s) -> PieceMerge:
        mean = WeightedMean(self._kernels, total, lambda each: each.weight, self._all_weights)
        match piece.treatment:
            case Treatment.KEEP:
                return Kept(piece, self._base)
            case Treatment.MAX:
                return Largest(piece)
            case Treatment.CONTROL:
                return WeightedMean(self._kernels, total, lambda _: 1.0, float(len(self._plan.inputs)))
        if piece.treatment is Treatment.MERGE and self._plan.of_deltas:
            return DeltaSum(self._kernels, total, piece, self._base)
        return mean if is_float(piece.dtype) else WholeMean(mean, piece, self._base)

    def _finish(self, piece: Piece, values: Array, model: list[Array], states: list[tuple[int, Array]]) -> None:
        """Let the server optimizer take its step, or the control variate its own, and round."""
        control = self._plan.strategy.control_variate
        held = self._held(piece)
        if piece.treatment is Treatment.MERGE:
            self._optimizer.step(values, base=partial(self._base.floats, piece), state=held)
        if piece.treatment is Treatment.CONTROL and control is not None:
            held[control.name] += control.rate * values
        else:
            model.append(round_to(values, piece.dtype) if is_float(piece.dtype) else values)
            self._check_finite(piece, model[-1], "the aggregate")
        for at, each in zip(piece.states, held.values(), strict=True):
            states.append((at, each.astype(piece.state_dtype)))
            self._check_finite(piece, states[-1][1], "the strategy's state")

    def _held(self, piece: Piece) -> dict[str, Float64s]:
        """What the state holds for the piece; before the first round that is what it begins with."""
        names = list(self._optimizer.initial_state) if piece.treatment is Treatment.MERGE else []
        if piece.treatment is Treatment.CONTROL and self._plan.strategy.control_variate is not None:
            names = [self._plan.strategy.control_variate.name]
        state = self._plan.state
        if state is None:
            return {name: np.full(piece.count, self._optimizer.initial_state.get(name, 0.0)) for name in names}
        return {name: self._read_state(state, piece, at) for name, at in zip(names, piece.states, strict=True)}

    def _read_state(self, state: Reader, piece: Piece, at: int) -> Float64s:
        size = piece.count * piece.state_dtype.itemsize
        raw = state.read(at, size, self._scratch.bytes("state", size))
        return raw.view(piece.state_dtype).astype(np.float64)

    def _check_finite(self, piece: Piece, values: Array, what: str) -> None:
        if values.dtype.kind in "biu" or np.isfinite(values).all():
            return
        first = int(np.isfinite(values).argmin())
        schema, header = self._plan.layout.update, len(self._plan.layout.update.header())
        place = piece.update + first * piece.dtype.itemsize - header
        name = next(span.spec.name for span in schema.spans() if place < span.stop)
        raise AggregationFailed(f"{what} is not finite: {name} holds {values[first]}", code="non_finite")


def _values(raw: Bytes, piece: Piece, block: Block) -> Array:
    start = piece.update - block.start
    return raw[start : start + piece.num_bytes].view(piece.dtype)
