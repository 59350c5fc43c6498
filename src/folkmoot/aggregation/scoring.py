"""The pass that merges and measures at once: scores that decide nothing cost no pass of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from folkmoot.aggregation.arrays import Float64s
from folkmoot.aggregation.blocks import Merged, Merging
from folkmoot.aggregation.layout import Block
from folkmoot.aggregation.measuring import Measured, Measuring
from folkmoot.aggregation.screening import Scores, scores_of

Scored = tuple[Float64s, Sequence[Merged]]
"""What some blocks together were measured to be, and what each was merged into."""


class Scoring:
    """Measures each block and merges it while it is in the cache; called by several threads at once."""

    def __init__(self, measuring: Measuring, merging: Merging) -> None:
        self._measuring, self._merging = measuring, merging
        self._found = measuring.nothing()

    def __call__(self, blocks: Sequence[Block]) -> list[Scored]:
        self._measuring.prepare(blocks)
        found, merged = self._measuring.nothing(), []
        for block in blocks:
            self._measuring.add(block, found)
            merged.append(self._merging.merge(block))
        return [(found, merged)]

    def merged(self, scored: Iterable[Scored]) -> Iterator[Merged]:
        """What the blocks were merged into, while what was measured is added up."""
        for found, merged in scored:
            self._found += found
            yield from merged

    def measured(self) -> Measured:
        """Of all blocks, once they have all been merged."""
        return self._measuring.measured(self._found)


def with_measured(scores: Sequence[Scores], measured: Measured) -> list[Scores]:
    """The scores with what was measured after they were decided on."""
    return [
        replace(each, norm=found.norm, relative_norm=found.relative_norm, cosine=found.cosine)
        for each, found in zip(scores, scores_of(measured.norms, measured.cosines), strict=True)
    ]
