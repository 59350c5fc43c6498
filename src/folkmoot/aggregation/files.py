"""The one way in: the files of a round's updates become the file of the next model."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from folkmoot.aggregation.blocks import Merged, Merging, Plan
from folkmoot.aggregation.inputs import in_order_of_ids, open_model, open_state, open_updates, reader_of_model
from folkmoot.aggregation.kernels import best_kernels
from folkmoot.aggregation.layout import Layout
from folkmoot.aggregation.measuring import Measured, Measuring
from folkmoot.aggregation.passes import in_order
from folkmoot.aggregation.rules import treatment_of
from folkmoot.aggregation.scoring import Scoring, with_measured
from folkmoot.aggregation.screening import Scores
from folkmoot.aggregation.state_file import StateWriter, writing_state
from folkmoot.aggregation.strategy import Measure, Strategy, Update
from folkmoot.aggregation.weighing import wanted_measure, weigh
from folkmoot.errors import InvalidValue
from folkmoot.tensors import TensorFileWriter
from folkmoot.tensors.schema import Schema
from folkmoot.tensors.tensor_file import WrittenFile, as_bytes

_BLOCKS_AT_ONCE = 4
"""A megabyte of each update."""

_BLOCKS_MEASURED_AT_ONCE = 4
"""Always as many: what they give is added up, and the bits depend on where."""

_NOTHING = Measured(np.zeros(0), np.zeros(0), np.zeros((0, 0)))


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
    `state_output`. The same bytes come out for any order of the updates, any number of threads (by default one for
    each processor) and of blocks that a thread takes at once. `output` appears whole or not at all, durably.
    Raises SchemaMismatch naming the update that has another layout than `base`, DamagedUpdate naming the one that
    is not what its checksums say, AggregationFailed where the updates are too few, cannot be weighed or the result
    is not finite, Unavailable where a file cannot be read, InvalidValue, StorageFull. An update that holds NaN or an
    infinity spoils a sum, which is found; whether it spoils an order statistic is looked at for NaN alone.
    """
    started = time.perf_counter()
    ordered = in_order_of_ids(updates)
    _check_state(strategy, state, state_output)
    model = open_model(base)
    layout = layout_of(strategy, model.schema)
    start, inputs = reader_of_model(base), open_updates(ordered, model, layout)
    threads = threads or len(os.sched_getaffinity(0))
    kernels = best_kernels(len(ordered) * model.num_bytes)
    measure = wanted_measure(strategy)
    measuring = Measuring(inputs, start, kernels, max(measure, Measure.NORMS))
    # What decides nothing is measured on the way; what is no file in memory would be fetched twice even so.
    on_the_way = measure is Measure.NOTHING and all(each.reader.is_mapped for each in inputs)
    is_measured_first = measure is not Measure.NOTHING or (strategy.scores and not on_the_way)
    measured = _measured(measuring, layout, threads) if is_measured_first else _NOTHING
    weighed = weigh(strategy, ordered, inputs, measured)
    kept = open_state(state, layout) if state else None
    merging = Merging(Plan(strategy, layout, weighed.inputs, weighed.of_deltas, start, kept), kernels)
    scoring = Scoring(measuring, merging) if strategy.scores and not is_measured_first else None
    with ExitStack() as stack:
        if scoring:
            scored = in_order(scoring, layout.blocks(), threads=threads, at_once=_BLOCKS_MEASURED_AT_ONCE)
            blocks: Iterable[Merged] = scoring.merged(stack.enter_context(closing(scored)))
        else:
            merged = in_order(merging, layout.blocks(), threads=threads, at_once=blocks_at_once)
            blocks = stack.enter_context(closing(merged))
        new_state = stack.enter_context(writing_state(state_output, layout.state)) if state_output else None
        writer = stack.enter_context(TensorFileWriter(output, model.schema))
        _write(blocks, writer, new_state)
    scores = with_measured(weighed.scores, scoring.measured()) if scoring else weighed.scores
    read = [*weighed.inputs, *(inputs if is_measured_first else [])]
    return Report(
        sha256=writer.sha256,
        num_bytes=writer.num_bytes,
        num_updates=len(ordered),
        num_bytes_read=sum(each.reader.size for each in read),
        seconds=time.perf_counter() - started,
        scores={update.id: each for update, each in zip(ordered, scores, strict=True)},
        state=new_state.written if new_state else None,
    )


def _measured(measuring: Measuring, layout: Layout, threads: int) -> Measured:
    found = measuring.nothing()
    for each in in_order(measuring, layout.blocks(), threads=threads, at_once=_BLOCKS_MEASURED_AT_ONCE):
        found += each
    return measuring.measured(found)


def layout_of(strategy: Strategy, model: Schema) -> Layout:
    """The files of a training with this strategy: its updates' schema, and its state's."""
    control = strategy.control_variate
    return Layout(
        model,
        partial(treatment_of, rules=strategy.rules),
        states=tuple(strategy.server_optimizer.initial_state),
        control_variate=control.name if control else "",
    )


def _write(blocks: Iterable[Merged], writer: TensorFileWriter, state: StateWriter | None) -> None:
    for block in blocks:
        for values in block.model:
            writer.write(as_bytes(values))
        if state is not None:
            for offset, values in block.states:
                state.write(offset, values)


def _check_state(strategy: Strategy, state: Path | None, state_output: Path | None) -> None:
    if strategy.keeps_state and state_output is None:
        raise InvalidValue("the strategy keeps state from round to round: say with state_output where to")
    if not strategy.keeps_state and (state or state_output):
        raise InvalidValue("the strategy keeps no state from round to round")
