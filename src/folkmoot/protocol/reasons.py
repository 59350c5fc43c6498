"""Why a training has ended early: the codes that stand beside the sentence."""

from __future__ import annotations

from enum import StrEnum


class ReasonCode(StrEnum):
    """All but the last two are of the state ERROR, after which the training can be tried again."""

    QUORUM = "quorum"
    """Too few updates came in time, or too few participants online, however often the round was tried."""
    NO_PARTICIPANTS = "no_participants"
    """Nobody is left to be asked."""
    TOO_FEW_PARTICIPANTS = "too_few_participants"
    """Fewer take part than the strategy needs."""
    TOO_FEW_UPDATES = "too_few_updates"
    """Fewer updates are left than the strategy needs, or than are to suffice."""
    AGGREGATION_FAILED = "aggregation_failed"
    """No model, or no moments, can be made of what came in."""
    NON_FINITE = "non_finite"
    """The next model would hold NaN or infinity."""
    DAMAGED_UPDATE = "damaged_update"
    """The model's own file is not what was written."""
    STORAGE = "storage"
    """Files could not be read or written for too long."""
    INTERNAL = "internal"
    """The server failed, time and again."""
    STOPPED = "stopped"
    """By who steers it."""
    STOPPED_EARLY = "stopped_early"
    """As `options.stop_when` says; the training is completed."""
