"""The pass that measures deltas: their norms, and their inner products with one another or with their mean.

Only what the strategy merges is measured, floats all. The sums are taken block by block, in the order of the blocks,
and within one as kernels.py says, so that the bits are the same whoever computes which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.aggregation.kernels import COLUMNS, Float64s, Kernels
from folkmoot.aggregation.layout import Block, Piece
from folkmoot.aggregation.pieces import Base, Input
from folkmoot.aggregation.rules import Treatment
from folkmoot.aggregation.sources import Reader, Scratch
from folkmoot.aggregation.strategy import Measure
from folkmoot.tensors.checksums import BLOCK_BYTES

_ROWS_BYTES = 1 << 22
"""How much of the deltas of all updates is multiplied at once."""


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
        self._shares = weights / weights.sum()
        self._all_products = measure is Measure.INNER_PRODUCTS

    def __call__(self, blocks: Sequence[Block]) -> list[Float64s]:
        start, stop = blocks[0].start, blocks[-1].start + blocks[-1].size
        for each in self._inputs:
            each.reader.prepare(start, stop - start)
        with np.errstate(all="ignore"):
            return [self._of_block(block) for block in blocks]

    def measured(self, of_blocks: Iterable[Float64s]) -> Measured:
        """Put together what the blocks gave, which comes in their order."""
        n = len(self._inputs)
        total = np.zeros((n, n) if self._all_products else (n + 1, 2))
        for each in of_blocks:
            total += each
        if not self._all_products:
            squares, of_mean, to_mean = total[:n, 0], total[n, 0], total[:n, 1]
            return Measured(np.sqrt(squares), _cosines(squares, of_mean, to_mean), np.zeros((0, 0)))
        products = np.tril(total) + np.tril(total, -1).T
        to_mean = np.array([_sum(row * self._shares) for row in products])
        squares = products.diagonal()
        return Measured(np.sqrt(squares), _cosines(squares, _sum(to_mean * self._shares), to_mean), products)

    def _of_block(self, block: Block) -> Float64s:
        n = len(self._inputs)
        total = np.zeros((n, n) if self._all_products else (n + 1, 2))
        pieces = [piece for piece in block.pieces if piece.treatment is Treatment.MERGE]
        for each in self._inputs:
            each.reader.block(block, self._scratch.bytes("block", BLOCK_BYTES))
        for piece in pieces:
            if self._all_products:
                self._add_products(piece, total)
            else:
                self._add_norms(piece, total)
        return total

    def _add_norms(self, piece: Piece, total: Float64s) -> None:
        mean, zeros = np.zeros(piece.count), np.zeros(piece.count)
        for (values, base), share in zip(self._each(piece), self._shares.tolist(), strict=True):
            self._kernels.accumulate_deltas(mean, values, base, share)
        for row, (values, base) in enumerate(self._each(piece)):
            total[row] += self._kernels.delta_products(values, base, mean)
        total[-1] += self._kernels.delta_products(mean, zeros, zeros)

    def _add_products(self, piece: Piece, total: Float64s) -> None:
        n = len(self._inputs)
        step = max(_ROWS_BYTES // (8 * n) // COLUMNS, 1) * COLUMNS
        for first in range(0, piece.count, step):
            part = piece.from_value(first, min(step, piece.count - first))
            width = -(-part.count // COLUMNS) * COLUMNS
            deltas = self._scratch.floats("deltas", n * width).reshape(n, width)
            deltas[:, part.count :] = 0.0
            for row, (values, base) in zip(deltas, self._each(part), strict=True):
                self._kernels.subtract(values, base, row[: part.count])
            self._kernels.inner_products(deltas, total)

    def _each(self, piece: Piece) -> Iterator[tuple[npt.NDArray[Any], Float64s]]:
        """The values of every update, and those that it began with; both only until the next ones are asked for."""
        base = None
        for each in self._inputs:
            if base is None or each.base is not None:
                base = self._base.floats(piece, reader=each.base)
            yield self._values(piece, each), base
            base = base if each.base is None else None

    def _values(self, piece: Piece, each: Input) -> npt.NDArray[Any]:
        raw = each.reader.read(piece.update, piece.num_bytes, self._scratch.bytes("values", piece.num_bytes))
        values = raw.view(piece.dtype)
        return values if piece.dtype.itemsize >= 4 else values.astype(np.float32)


def _cosines(squares: Float64s, of_mean: float, to_mean: Float64s) -> Float64s:
    with np.errstate(all="ignore"):
        cosines: Float64s = to_mean / (np.sqrt(squares) * np.sqrt(of_mean))
    return np.clip(cosines, -1.0, 1.0)


def _sum(values: Float64s) -> float:
    """One after another: NumPy's own order depends on the processor."""
    return float(np.add.accumulate(values)[-1])
