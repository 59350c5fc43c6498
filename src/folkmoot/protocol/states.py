"""The states of a training and of a round, as they go over the wire."""

from __future__ import annotations

from enum import StrEnum


class TrainingState(StrEnum):
    """One letter each, as the seed API has it (P and X are Folkmoot's)."""

    INITIAL = "I"
    ONGOING = "O"
    SWAG_ROUND = "S"
    PAUSED = "P"
    COMPLETED = "C"
    STOPPED = "X"
    ERROR = "E"

    @property
    def is_final(self) -> bool:
        """Whether the training is over: nobody joins, starts or uploads any more."""
        return self in (TrainingState.COMPLETED, TrainingState.STOPPED, TrainingState.ERROR)


class RoundState(StrEnum):
    """What a round is doing: collecting updates, making the next model, having it tested, or nothing more."""

    OPEN = "OPEN"
    AGGREGATING = "AGGREGATING"
    TESTING = "TESTING"
    CLOSED = "CLOSED"
    FAILED = "FAILED"
