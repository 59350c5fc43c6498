"""The one way in: the files of a round's updates become the file of the next model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from folkmoot.aggregation.blocks import Merged, Merging, Plan
from folkmoot.aggregation.kernels import best_kernels
from folkmoot.aggregation.layout import Layout
from folkmoot.aggregation.measuring import Measured, Measuring
from folkmoot.aggregation.passes import in_order
from folkmoot.aggregation.pieces import Input
from folkmoot.aggregation.rules import treatment_of
from folkmoot.aggregation.screening import Scores
from folkmoot.aggregation.sources import Reader, opened
from folkmoot.aggregation.state_file import StateWriter, writing_state
from folkmoot.aggregation.strategy import Measure, Source, Strategy, Update
from folkmoot.aggregation.weighing import wanted_measure, weigh
from folkmoot.errors import AggregationFailed, DamagedUpdate, InvalidFile, InvalidValue, SchemaMismatch
from folkmoot.tensors import TensorFile, TensorFileWriter, check_fits
from folkmoot.tensors.limits import TRUSTED
from folkmoot.tensors.schema import Schema
from folkmoot.tensors.tensor_file import WrittenFile, as_bytes

_BLOCKS_AT_ONCE = 4
"""A megabyte of each update."""


@dataclass(frozen=True)
class Report:
    """What an aggregation did; `sha256` and `num_bytes` are the new file's, `num_bytes_read` counts every pass.

    `scores` tell of each update, by its id, how much it counts and whether it was left out; `state` is the state's
    file, where the strategy keeps any.
    """

    sha256: str
    num_bytes: int
    num_updates: int
    num_bytes_read: int
    seconds: float
    scores: Mapping[str, Scores] = field(default_factory=dict)
    state: WrittenFile | None = None


def aggregate_files(
    strategy: Strategy,
    base: Path,
    updates: Iterable[Update],
    output: Path,
    *,
    state: Path | None = None,
    state_output: Path | None = None,
    threads: int | None = None,
    blocks_at_once: int = _BLOCKS_AT_ONCE,
) -> Report:
    """Merge `updates` into the model `base` and write the next one to `output`; all are canonical TensorFiles.

    A strategy that keeps state reads it from `state`, None before the first round, and writes the next to
    `state_output`. The same bytes come out for any order of the updates and any number of threads (by default one
    for each processor). `output` appears whole or not at all, durably.
    Raises SchemaMismatch naming the update that has another layout than `base`, DamagedUpdate naming the one that
    is not what its checksums say, AggregationFailed where the updates are too few, cannot be weighed or the result
    is not finite, Unavailable where a file cannot be read, InvalidValue, StorageFull.
    """
    started = time.perf_counter()
    ordered = _in_order(updates)
    _check_state(strategy, state, state_output)
    model = _canonical(base)
    layout = layout_of(strategy, model.schema)
    start, inputs = _reader_of_model(base), _inputs(ordered, model, layout)
    run = partial(_run, layout, threads or len(os.sched_getaffinity(0)), blocks_at_once)
    kernels = best_kernels(len(ordered) * model.num_bytes)
    measure = wanted_measure(strategy)
    measured = _NOTHING
    if measure is not Measure.NOTHING:
        measuring = Measuring(inputs, start, kernels, measure)
        measured = measuring.measured(run(measuring))
    weighed = weigh(strategy, ordered, inputs, measured)
    kept = _state_reader(state, layout)
    merging = Merging(Plan(strategy, model.schema, weighed.inputs, weighed.of_deltas, start, kept), kernels)
    with ExitStack() as stack:
        blocks = stack.enter_context(closing(run(merging)))
        new_state = stack.enter_context(writing_state(state_output, layout.state)) if state_output else None
        writer = stack.enter_context(TensorFileWriter(output, model.schema))
        _write(blocks, writer, new_state)
    passes = 1 if measure is Measure.NOTHING else 2
    return Report(
        sha256=writer.sha256,
        num_bytes=writer.num_bytes,
        num_updates=len(ordered),
        num_bytes_read=passes * sum(each.reader.size for each in inputs),
        seconds=time.perf_counter() - started,
        scores={update.id: scores for update, scores in zip(ordered, weighed.scores, strict=True)},
        state=new_state.written if new_state else None,
    )


_NOTHING = Measured(np.zeros(0), np.zeros(0), np.zeros((0, 0)))


def layout_of(strategy: Strategy, model: Schema) -> Layout:
    """The files of a training with this strategy: its updates' schema, and its state's."""
    control = strategy.control_variate
    return Layout(
        model,
        partial(treatment_of, rules=strategy.rules),
        states=tuple(strategy.server_optimizer.initial_state),
        control_variate=control.name if control else "",
    )


def _run(layout: Layout, threads: int, at_once: int, work: Callable[[Sequence[Any]], Sequence[Any]]) -> Generator[Any]:
    return in_order(work, layout.blocks(), threads=threads, at_once=at_once)


def _write(blocks: Iterable[Merged], writer: TensorFileWriter, state: StateWriter | None) -> None:
    for block in blocks:
        for values in block.model:
            writer.write(as_bytes(values))
        if state is not None:
            for offset, values in block.states:
                state.write(offset, values)


def _in_order(updates: Iterable[Update]) -> Sequence[Update]:
    ordered = sorted(updates, key=lambda update: update.id)
    if not ordered:
        raise AggregationFailed("there are no updates to aggregate")
    for update, following in pairwise(ordered):
        if update.id == following.id:
            raise InvalidValue(f"two updates have the id {update.id}")
    for update in ordered:
        if type(update.num_examples) is not int or update.num_examples <= 0:
            raise InvalidValue(f"update {update.id} has num_examples {update.num_examples!r}, expected at least 1")
    return ordered


def _check_state(strategy: Strategy, state: Path | None, state_output: Path | None) -> None:
    if strategy.keeps_state and state_output is None:
        raise InvalidValue("the strategy keeps state from round to round: say with state_output where to")
    if not strategy.keeps_state and (state or state_output):
        raise InvalidValue("the strategy keeps no state from round to round")


def _canonical(base: Path) -> TensorFile:
    model = TensorFile.open(base, limits=TRUSTED)
    if not model.is_canonical:
        raise AggregationFailed("the model that the round began with is not a canonical file")
    return model


def _reader_of_model(base: Path | Source) -> Reader:
    what = "the model that the round began with"
    return Reader(what, opened(base, what))


def _state_reader(state: Path | None, layout: Layout) -> Reader | None:
    if state is None:
        return None
    check_fits(layout.state, TensorFile.open(state, limits=TRUSTED).schema, what="the strategy's state")
    return Reader("the strategy's state", opened(state, "the strategy's state"))


def _inputs(updates: Sequence[Update], model: TensorFile, layout: Layout) -> list[Input]:
    header = layout.update.header()
    bases: dict[Path | Source, Reader] = {}
    inputs = []
    for number, update in enumerate(updates):
        reader = Reader.of(update, number)
        _check_layout(reader, header, layout.update, update)
        base = None
        if update.base is not None:
            base = bases.setdefault(update.base, _reader_of_model(update.base))
            if base.copy(0, model.data_offset) != model.header:
                raise SchemaMismatch(f"the model that update {update.id} began with has another layout")
        inputs.append(Input(reader, float(update.num_examples), 0.0, base=base))
    return inputs


def _check_layout(reader: Reader, header: bytes, schema: Schema, update: Update) -> None:
    if reader.size == len(header) + schema.num_bytes and reader.copy(0, len(header)) == header:
        return
    what = f"update {update.id}"
    if update.checksums:  # it had the layout when these were made
        raise DamagedUpdate(f"{what} is damaged: it does not begin as it did when it came in", update_id=update.id)
    if isinstance(update.path, Path):
        try:
            check_fits(schema, TensorFile.open(update.path, limits=TRUSTED).schema, what=what)
        except InvalidFile as error:
            raise SchemaMismatch(f"{what} is damaged: {error.message}") from error
    raise SchemaMismatch(f"{what} does not have the byte layout of the model")
