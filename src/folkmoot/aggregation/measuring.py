"""The pass that measures deltas: their norms, and their inner products with one another or with their mean.

Only what the strategy merges is measured, floats all. The sums are taken block by block, in the order of the blocks,
and within one as numpy_kernels.py says, so that the bits are the same whoever computes which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from folkmoot.aggregation.arrays import AT_ONCE_BYTES, Float64s, total
from folkmoot.aggregation.kernels import Kernels
from folkmoot.aggregation.layout import Block, Piece
from folkmoot.aggregation.numpy_kernels import COLUMNS
from folkmoot.aggregation.pieces import Base, Input, next_values, wide
from folkmoot.aggregation.rules import Treatment
from folkmoot.aggregation.sources import Reader, Reading, Scratch
from folkmoot.aggregation.strategy import Measure


@dataclass(frozen=True)
class Measured:
    """`norms` and `cosines` have the shape (n,), a cosine is that to the mean by weights; `inner_products` (n, n).

    A cosine that does not exist is NaN; the inner products are empty where they were not asked for.
    """

    norms: Float64s
    cosines: Float64s
    inner_products: Float64s


class Measuring:
    """Measures some blocks at a time; called by several threads at once. `weights` are those of the mean."""

    def __init__(self, inputs: Sequence[Input], base: Reader, kernels: Kernels, measure: Measure) -> None:
        self._inputs, self._kernels = inputs, kernels
        self._scratch = Scratch()
        self._base = Base(base, self._scratch)
        weights = np.array([each.weight for each in inputs])
        self._shares = weights / total(weights)
        self._all_products = measure is Measure.INNER_PRODUCTS
        n = len(inputs)
        self._shape = (n, n) if self._all_products else (n + 1, 2)

    def __call__(self, blocks: Sequence[Block]) -> list[Float64s]:
        """One array for all of the blocks, added up in their order."""
        start, stop = blocks[0].start, blocks[-1].start + blocks[-1].size
        for each in self._inputs:
            each.reader.prepare(start, stop - start)
        found = np.zeros(self._shape)
        with np.errstate(all="ignore"):
            for block in blocks:
                self._add(block, found)
        return [found]

    def measured(self, of_blocks: Iterable[Float64s]) -> Measured:
        """Put together what the blocks gave, which comes in their order."""
        n, found = len(self._inputs), np.zeros(self._shape)
        for each in of_blocks:
            found += each
        if not self._all_products:
            squares, of_mean, to_mean = found[:n, 0], found[n, 0], found[:n, 1]
            return Measured(np.sqrt(squares), _cosines(squares, of_mean, to_mean), np.zeros((0, 0)))
        products = np.tril(found) + np.tril(found, -1).T
        to_mean = np.array([total(row * self._shares) for row in products])
        squares = products.diagonal()
        return Measured(np.sqrt(squares), _cosines(squares, total(to_mean * self._shares), to_mean), products)

    def _add(self, block: Block, found: Float64s) -> None:
        readings = [Reading(each.reader, block) for each in self._inputs]
        for piece in block.pieces:
            for part in self._parts(piece):
                self._add_part(part, readings, found)
        for reading in readings:
            reading.finish()

    def _parts(self, piece: Piece) -> Iterator[Piece]:
        """Fixed by the number of updates, since the bits depend on it."""
        step = max(AT_ONCE_BYTES // (8 * len(self._inputs)) // COLUMNS, 1) * COLUMNS
        for first in range(0, piece.count, step):
            yield piece.from_value(first, min(step, piece.count - first))

    def _add_part(self, part: Piece, readings: Sequence[Reading], found: Float64s) -> None:
        if part.treatment is not Treatment.MERGE:
            for reading in readings:  # which are to see all of the block
                next_values(reading, part, self._scratch)
            return
        deltas = self._deltas(part, readings)
        if self._all_products:
            self._kernels.inner_products(deltas, found)
            return
        mean, zeros = np.zeros(deltas.shape[1]), np.zeros(deltas.shape[1])
        self._kernels.accumulate(mean, list(deltas), self._shares.tolist())
        for row, delta in enumerate(deltas):
            found[row] += self._kernels.delta_products(delta, zeros, mean)
        found[-1] += self._kernels.delta_products(mean, zeros, zeros)

    def _deltas(self, part: Piece, readings: Sequence[Reading]) -> Float64s:
        """One row for each update, filled up with zeros to a multiple of COLUMNS."""
        n, width = len(self._inputs), -(-part.count // COLUMNS) * COLUMNS
        deltas = self._scratch.floats("deltas", n * width).reshape(n, width)
        deltas[:, part.count :] = 0.0
        base = None
        for row, each, reading in zip(deltas, self._inputs, readings, strict=True):
            if base is None or each.base is not None:
                base = self._base.floats(part, reader=each.base)
            self._kernels.subtract(wide(next_values(reading, part, self._scratch)), base, row[: part.count])
            base = base if each.base is None else None
        return deltas


def _cosines(squares: Float64s, of_mean: float, to_mean: Float64s) -> Float64s:
    with np.errstate(all="ignore"):
        cosines: Float64s = to_mean / (np.sqrt(squares) * np.sqrt(of_mean))
    return np.clip(cosines, -1.0, 1.0)
