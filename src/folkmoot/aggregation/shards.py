"""A part of the next model by itself, for many machines to share the work: joined in order, the parts are the whole."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from folkmoot.aggregation.blocks import Merging, Plan
from folkmoot.aggregation.files import layout_of
from folkmoot.aggregation.inputs import in_order_of_ids, open_model, open_updates, reader_of_model
from folkmoot.aggregation.kernels import best_kernels
from folkmoot.aggregation.measuring import Measured
from folkmoot.aggregation.passes import in_order
from folkmoot.aggregation.screening import Scores
from folkmoot.aggregation.strategy import Measure, Strategy, Update
from folkmoot.aggregation.weighing import wanted_measure, weigh
from folkmoot.tensors.checksums import BLOCK_BYTES
from folkmoot.tensors.schema import Schema
from folkmoot.tensors.tensor_file import as_bytes

_BLOCKS_AT_ONCE = 4


@dataclass(frozen=True)
class Shard:
    """The blocks of a model from the `first` up to `stop`, this one not included; the first of all has the header."""

    first: int
    stop: int


def can_be_sharded(strategy: Strategy) -> bool:
    """Whether each coordinate follows from the same one of the updates and the model alone.

    Not where updates are weighed by their norms or distances (Krum, RFA, `clip`, `screen`, and `scores`, which report
    them): these are sums over whole files. Nor where state is kept, which is a file of its own.
    """
    return wanted_measure(strategy) is Measure.NOTHING and not strategy.scores and not strategy.keeps_state


def shards_of(model: Schema, shard_bytes: int) -> list[Shard]:
    """Cut a model into shards of as many whole blocks as fit into `shard_bytes`, but at least one."""
    blocks, step = -(-model.num_bytes // BLOCK_BYTES), max(shard_bytes // BLOCK_BYTES, 1)
    return [Shard(first, min(first + step, blocks)) for first in range(0, max(blocks, 1), step)]


def aggregate_shard(
    strategy: Strategy, base: Path, updates: Iterable[Update], shard: Shard, output: BinaryIO, *, threads: int = 0
) -> Mapping[str, Scores]:
    """Write to `output` what `aggregate_files` would write in the shard's place; return the updates' scores by id.

    Only for a strategy that can be sharded. Raises as `aggregate_files` does.
    """
    ordered = in_order_of_ids(updates)
    model = open_model(base)
    layout = layout_of(strategy, model.schema)
    start, inputs = reader_of_model(base), open_updates(ordered, model, layout)
    weighed = weigh(strategy, ordered, inputs, Measured(np.zeros(0), np.zeros(0), np.zeros((0, 0))))
    kernels = best_kernels(len(ordered) * (shard.stop - shard.first) * BLOCK_BYTES)
    merging = Merging(Plan(strategy, layout, weighed.inputs, weighed.of_deltas, start), kernels)
    blocks = (block for block in layout.blocks() if shard.first <= block.number < shard.stop)
    if shard.first == 0:
        output.write(model.header)
    threads = threads or len(os.sched_getaffinity(0))
    with closing(in_order(merging, blocks, threads=threads, at_once=_BLOCKS_AT_ONCE)) as merged:
        for each in merged:
            for values in each.model:
                output.write(as_bytes(values))
    return {update.id: scores for update, scores in zip(ordered, weighed.scores, strict=True)}
