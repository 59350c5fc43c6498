"""A strategy in whose middle a test may do something."""

from __future__ import annotations

from dataclasses import dataclass

from folkmoot.aggregation import SGD, Strategy
from folkmoot.aggregation.mean import WeightedMean

meanwhile = []


@dataclass(frozen=True)
class Interrupted(WeightedMean):
    def weigh(self, cohort):
        if meanwhile:
            meanwhile.pop()()
        return super().weigh(cohort)


def interrupted():
    return Strategy(Interrupted(), SGD())
