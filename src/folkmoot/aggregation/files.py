"""The one way in: the files of a round's updates become the file of the next model."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from folkmoot.aggregation.blocks import BLOCK_ELEMENTS, BlockLoop, cut
from folkmoot.aggregation.sources import FileSource, most_open_files
from folkmoot.aggregation.strategy import Source, Strategy, Update
from folkmoot.errors import AggregationFailed, InvalidFile, InvalidValue, NotAvailableYet, SchemaMismatch
from folkmoot.tensors import TensorFile, TensorFileWriter, check_fits
from folkmoot.tensors.limits import TRUSTED


@dataclass(frozen=True)
class Report:
    """What an aggregation did; `sha256` and `num_bytes` are the new file's, `num_bytes_read` the updates'."""

    sha256: str
    num_bytes: int
    num_updates: int
    num_bytes_read: int
    seconds: float


def aggregate_files(
    strategy: Strategy,
    base: Path,
    updates: Iterable[Update],
    output: Path,
    *,
    threads: int | None = None,
    block_elements: int = BLOCK_ELEMENTS,
) -> Report:
    """Merge `updates` into the model `base` and write the next one to `output`; all are canonical TensorFiles.

    The same bytes come out for any order of the updates, number of threads (by default one for each
    processor) and size of the blocks. `output` appears whole or not at all, durably.
    Raises SchemaMismatch naming the update that has another layout than `base`, AggregationFailed where
    there is no update, one cannot be read or the result is not finite, InvalidValue, StorageFull.
    """
    started = time.perf_counter()
    ordered = _in_order(updates)
    if strategy.server_optimizer.state_names:
        raise NotAvailableYet("strategies that keep state from round to round are not available yet")
    model = TensorFile.open(base, limits=TRUSTED)
    if not model.is_canonical:
        raise AggregationFailed("the model that the round began with is not a canonical file")
    with ExitStack() as stack:
        start = stack.enter_context(closing(FileSource(base, keep_open=True)))
        sources = [(update, _open(update, model, number, stack)) for number, update in enumerate(ordered)]
        loop = BlockLoop(strategy, model.schema, start, sources)
        blocks = stack.enter_context(closing(loop.run(cut(model.schema, block_elements), threads or _processors())))
        writer = stack.enter_context(TensorFileWriter(output, model.schema))
        for block in blocks:
            writer.write(block.view(np.uint8).data)
    num_bytes_read = len(ordered) * model.num_bytes
    return Report(writer.sha256, writer.num_bytes, len(ordered), num_bytes_read, time.perf_counter() - started)


def _processors() -> int:
    return len(os.sched_getaffinity(0))


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


def _open(update: Update, model: TensorFile, number: int, stack: ExitStack) -> Source:
    """Open the update, for good only if it is among the first ones, and check that it has the model's layout."""
    with _unreadable_fails(update):
        source = update.path
        if isinstance(source, Path):
            source = stack.enter_context(closing(FileSource(source, keep_open=number < most_open_files())))
        if source.size == model.num_bytes:
            header = bytearray(model.data_offset)
            source.read_into(0, memoryview(header))
            if header == model.header:
                return source
        raise _mismatch(update, model)


def _mismatch(update: Update, model: TensorFile) -> SchemaMismatch:
    what = f"update {update.id}"
    try:
        if isinstance(update.path, Path):
            check_fits(model.schema, TensorFile.open(update.path, limits=TRUSTED).schema, what=what)
    except InvalidFile as error:
        return SchemaMismatch(f"{what} is damaged: {error.message}")
    except SchemaMismatch as error:
        return error
    return SchemaMismatch(f"{what} does not have the byte layout of the model")


@contextmanager
def _unreadable_fails(update: Update) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError) as error:
        raise AggregationFailed(f"update {update.id} cannot be read") from error
