"""The pass that measures deltas: their norms, and their inner products with one another or with their mean.

Only what the strategy merges is measured, floats all. The sums are taken block by block, in the order of the blocks,
and within one as numpy_kernels.py says, so that the bits are the same whoever computes which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from folkmoot.aggregation.arrays import AT_ONCE_BYTES, Array, Float64s, total
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
        # Fixed by the number of updates, since the bits depend on it.
        self._stretch = max(AT_ONCE_BYTES // (8 * n) // COLUMNS, 1) * COLUMNS
        self._are_mapped = all(each.reader.is_mapped for each in inputs)
        self._shape = (n, n) if self._all_products else (n + 1, 2)

    def __call__(self, blocks: Sequence[Block]) -> list[Float64s]:
        """One array for all of the blocks, added up in their order."""
        self.prepare(blocks)
        found = self.nothing()
        for block in blocks:
            self.add(block, found)
        return [found]

    def nothing(self) -> Float64s:
        """What is found in no blocks."""
        return np.zeros(self._shape)

    def prepare(self, blocks: Sequence[Block]) -> None:
        """Have blocks that lie side by side read."""
        start, stop = blocks[0].start, blocks[-1].start + blocks[-1].size
        for each in self._inputs:
            each.reader.prepare(start, stop - start)

    def measured(self, found: Float64s) -> Measured:
        """Make of what was found in all blocks, added up in their order, what is asked for."""
        n = len(self._inputs)
        if not self._all_products:
            squares, of_mean, to_mean = found[:n, 0], found[n, 0], found[:n, 1]
            return Measured(np.sqrt(squares), _cosines(squares, of_mean, to_mean), np.zeros((0, 0)))
        products = np.tril(found) + np.tril(found, -1).T
        to_mean = np.array([total(row * self._shares) for row in products])
        squares = products.diagonal()
        return Measured(np.sqrt(squares), _cosines(squares, total(to_mean * self._shares), to_mean), products)

    def add(self, block: Block, found: Float64s) -> None:
        """Measure one block and add that to `found`."""
        readings = [Reading(each.reader, block) for each in self._inputs]
        with np.errstate(all="ignore"):
            for piece in block.pieces:
                for part in self._parts(piece):
                    self._add_part(part, readings, found)
        for reading in readings:
            reading.finish()

    def _parts(self, piece: Piece) -> Iterator[Piece]:
        """As much as there is memory for: what is mapped takes none, unless it has to be widened."""
        takes_none = self._are_mapped and piece.dtype.itemsize >= 4
        step = piece.count if takes_none else self._stretch
        for first in range(0, piece.count, step):
            yield piece.from_value(first, min(step, piece.count - first))

    def _add_part(self, part: Piece, readings: Sequence[Reading], found: Float64s) -> None:
        if part.treatment is not Treatment.MERGE:
            for reading in readings:  # which are to see all of the block
                next_values(reading, part, self._scratch)
            return
        values = [wide(next_values(reading, part, self._scratch, row)) for row, reading in enumerate(readings)]
        bases = self._bases(part)
        if self._all_products:
            self._kernels.inner_products(values, bases, found)
        else:
            self._kernels.mean_products(values, bases, self._shares, self._stretch, found)

    def _bases(self, part: Piece) -> list[Array]:
        """What each update began with."""
        of_round = wide(self._base.values(part))
        return [
            of_round if each.base is None else wide(Base(each.base, self._scratch, f"base of {row}").values(part))
            for row, each in enumerate(self._inputs)
        ]


def _cosines(squares: Float64s, of_mean: float, to_mean: Float64s) -> Float64s:
    with np.errstate(all="ignore"):
        cosines: Float64s = to_mean / (np.sqrt(squares) * np.sqrt(of_mean))
    return np.clip(cosines, -1.0, 1.0)
