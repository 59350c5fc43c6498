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
        """Whether the training is over, if it is not tried again after an error: nobody starts or uploads any more."""
        return self in (TrainingState.COMPLETED, TrainingState.STOPPED, TrainingState.ERROR)

    @property
    def is_under_way(self) -> bool:
        """Whether a round is open, or being worked on, and will be followed by the next."""
        return self in (TrainingState.ONGOING, TrainingState.SWAG_ROUND)

    @property
    def is_begun(self) -> bool:
        """Whether it was started and is not over: what is sent for its round is taken, also during a pause."""
        return self.is_under_way or self is TrainingState.PAUSED


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
    """It came after the last round had all it needed, or the training was stopped before it counted."""
    PASSED_ON = "passed_on"
    """In daisy chaining: it was another participant's to begin with, and wandered on."""


class Doing(StrEnum):
    """What a participant is doing about the update that a round has asked it for."""

    ASSIGNED = "assigned"
    DOWNLOADING = "downloading"
    TRAINING = "training"
    UPLOADED = "uploaded"
    LATE = "late"
    """The round went on without its update."""
    FAILED = "failed"
    """It says that it could not make one; it may still send one."""
    DECLINED = "declined"
    """It says that it will not make one in this round."""

    @property
    def is_under_way(self) -> bool:
        """Whether an update is being made."""
        return self in (Doing.DOWNLOADING, Doing.TRAINING)

    @property
    def gives_up(self) -> bool:
        """Whether nobody need wait for the update."""
        return self in (Doing.FAILED, Doing.DECLINED)


class RoundState(StrEnum):
    """What a round is doing: collecting updates, making the next model, having it tested, or nothing more.

    With SWAG, moments of the next model are collected before the test, and merged.
    """

    WAITING = "WAITING"
    """Not open yet: too few participants are online."""
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
