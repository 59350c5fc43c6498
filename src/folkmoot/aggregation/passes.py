"""Going through all blocks once, by several threads, with the results in the blocks' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from folkmoot.aggregation.layout import Block

Result = TypeVar("Result")


def in_order(
    work: Callable[[Sequence[Block]], Sequence[Result]], blocks: Iterable[Block], *, threads: int, at_once: int
) -> Generator[Result]:
    """Yield what `work` gives for each block; a thread takes `at_once` of them, and few results wait to be taken."""
    pending: deque[Future[Sequence[Result]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="aggregate") as pool:
        try:
            for some in _batches(blocks, at_once):
                pending.append(pool.submit(work, some))
                if len(pending) > threads + 1:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _batches(blocks: Iterable[Block], size: int) -> Iterator[list[Block]]:
    remaining = iter(blocks)
    while batch := list(islice(remaining, size)):
        yield batch
