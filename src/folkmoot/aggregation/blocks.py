"""The block loop: the same stretch of every update is merged before the next stretch is read.

Memory is a few cache-sized blocks for each thread, however many updates there are. Blocks are independent
of one another, so that the result does not depend on their size or on who computes which.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.aggregation.strategy import Float64s, Source, Strategy, Update
from folkmoot.errors import AggregationFailed
from folkmoot.tensors import Schema
from folkmoot.tensors.schema import BFLOAT16, is_float

# Two float64 blocks and a raw one stay within the second-level cache of one core.
BLOCK_ELEMENTS = 1 << 16


@dataclass(frozen=True)
class Block:
    """`count` values of one dtype, from byte `offset` of the file on; they may belong to several tensors."""

    dtype: np.dtype[Any]
    offset: int
    count: int


def cut(schema: Schema, block_elements: int) -> Iterator[Block]:
    """Cut a canonical file into blocks, in order; tensors of one dtype lie side by side in it."""
    offset = len(schema.header())
    for dtype, specs in groupby(schema, key=lambda spec: spec.numpy_dtype):
        left = sum(spec.num_elements for spec in specs)
        while left:
            count = min(left, block_elements)
            yield Block(dtype, offset, count)
            offset += count * dtype.itemsize
            left -= count


class BlockLoop:
    """Computes the blocks of the next model; `updates` are in the order of their ids."""

    def __init__(
        self, strategy: Strategy, schema: Schema, base: Source, updates: Sequence[tuple[Update, Source]]
    ) -> None:
        self.strategy = strategy
        self.schema = schema
        self.base = base
        self.updates = updates
        self._buffers = threading.local()

    def run(self, blocks: Iterable[Block], threads: int) -> Generator[npt.NDArray[Any]]:
        """Yield the finished blocks in order; `threads` of them are computed while one is being written."""
        pending: deque[Future[npt.NDArray[Any]]] = deque()
        with ThreadPoolExecutor(threads, thread_name_prefix="aggregate") as pool:
            try:
                for block in blocks:
                    pending.append(pool.submit(self.compute, block))
                    if len(pending) > 2 * threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def compute(self, block: Block) -> npt.NDArray[Any]:
        """Merge one block of all updates and round it to the dtype of the model."""
        aggregate = self._buffer("aggregate", block)
        # Overflow is found by looking at the result.
        with np.errstate(all="ignore"):
            self.strategy.aggregator.aggregate(self._values_of_updates(block), aggregate)
            self.strategy.server_optimizer.step(aggregate, base=lambda: self._values_of_base(block), state={})
            rounded = round_to(aggregate, block.dtype)
        self._check_finite(block, rounded if is_float(block.dtype) else aggregate)
        return rounded

    def _check_finite(self, block: Block, values: npt.NDArray[Any]) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            place = block.offset + int(finite.argmin()) * block.dtype.itemsize - len(self.schema.header())
            name = next(span.spec.name for span in self.schema.spans() if place < span.stop)
            raise AggregationFailed(f"the aggregate is not finite: {name} holds {values[finite.argmin()]}")

    def _values_of_updates(self, block: Block) -> Iterator[tuple[Update, Float64s]]:
        values = self._buffer("values", block)
        for update, source in self.updates:
            try:
                self._read(source, block, values)
            except (OSError, EOFError) as error:
                raise AggregationFailed(f"update {update.id} cannot be read any more") from error
            yield update, values

    def _values_of_base(self, block: Block) -> Float64s:
        values = self._buffer("base", block)
        self._read(self.base, block, values)
        return values

    def _read(self, source: Source, block: Block, values: Float64s) -> None:
        raw = self._buffer("raw", block).view(np.uint8)[: block.count * block.dtype.itemsize]
        source.read_into(block.offset, raw.data)
        np.copyto(values, raw.view(block.dtype))

    def _buffer(self, name: str, block: Block) -> Float64s:
        """A buffer of this thread's own, made once for the largest block."""
        buffer: Float64s | None = getattr(self._buffers, name, None)
        if buffer is None or len(buffer) < block.count:
            buffer = np.empty(block.count)
            setattr(self._buffers, name, buffer)
        return buffer[: block.count]


def round_to(values: Float64s, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Round to `dtype`, once; integers to nearest, half to even, within their range; not for NaN."""
    if dtype == BFLOAT16:
        return _to_float32_odd(values).astype(dtype)
    if is_float(dtype):
        return values.astype(dtype)
    if dtype.kind == "b":
        return np.rint(values) > 0
    limits = np.iinfo(dtype)
    highest = np.float64(limits.max)
    if int(highest) > limits.max:
        highest = np.nextafter(highest, 0)
    return np.clip(np.rint(values), limits.min, highest).astype(dtype)


def _to_float32_odd(values: Float64s) -> npt.NDArray[np.float32]:
    """Round towards zero, with the last bit set if anything was lost: what is rounded from there is rounded once.

    Source: Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums", https://doi.org/10.1109/TC.2007.70819
    """
    single = values.astype(np.float32)
    wide = single.astype(np.float64)
    bits = single.view(np.uint32)
    bits -= np.abs(wide) > np.abs(values)
    bits |= wide != values
    return single
