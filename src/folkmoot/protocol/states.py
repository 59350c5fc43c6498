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

    @property
    def is_under_way(self) -> bool:
        """Whether a round is open, or being worked on."""
        return self in (TrainingState.ONGOING, TrainingState.SWAG_ROUND)


class UpdateStatus(StrEnum):
    """What has become of an update; all but the first two leave it out of the aggregate."""

    WAITING = "waiting"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    """By the strategy's screen, or because its stored bytes are damaged."""
    QUARANTINED = "quarantined"
    """As rejected, but to be looked at by a person."""
    NOT_CHOSEN = "not_chosen"
    """The strategy gave it no weight, as Krum does to all but one."""
    LATE = "late"
    """In asynchronous training: it came after the last round had all it needed."""
    PASSED_ON = "passed_on"
    """In daisy chaining: it was another participant's to begin with, and wandered on."""


class RoundState(StrEnum):
    """What a round is doing: collecting updates, making the next model, having it tested, or nothing more.

    With SWAG, moments of the next model are collected before the test, and merged.
    """

    OPEN = "OPEN"
    AGGREGATING = "AGGREGATING"
    SWAG = "SWAG"
    MERGING = "MERGING"
    TESTING = "TESTING"
    CLOSED = "CLOSED"
    FAILED = "FAILED"

    @property
    def is_aggregating(self) -> bool:
        """Whether the server is at work on what came in."""
        return self in (RoundState.AGGREGATING, RoundState.MERGING)
