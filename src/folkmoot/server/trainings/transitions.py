"""The tables of states: what may follow what."""

from __future__ import annotations

from enum import StrEnum

from folkmoot.errors import WrongState
from folkmoot.protocol.states import RoundState, TrainingState


class TrainingEvent(StrEnum):
    START = "start"
    COLLECT = "collect"
    """Moments of the new model are to come in."""
    GO_ON = "go on"
    PAUSE = "pause"
    RESUME = "resume"
    FINISH = "finish"
    FAIL = "fail"
    RETRY = "retry"
    STOP = "stop"


class RoundEvent(StrEnum):
    ADMIT = "open"
    """Enough participants are online."""
    FILL = "fill"
    """Enough updates are in."""
    RELAY = "relay"
    """Enough updates are in, and they wander on to other participants."""
    COLLECT = "collect"
    """The next model is made, and its moments are to come in."""
    TEST = "test"
    """The next model is made, and is to be tested."""
    CLOSE = "close"
    RETRY = "retry"
    """Too few updates in time, or too few that are whole, or it had failed: ask those who are missing once more."""
    WAIT = "wait"
    """It had failed before anybody was asked, and too few are online still."""
    FAIL = "fail"


TRAINING_TRANSITIONS: dict[tuple[TrainingState, TrainingEvent], TrainingState] = {
    (TrainingState.INITIAL, TrainingEvent.START): TrainingState.ONGOING,
    (TrainingState.INITIAL, TrainingEvent.STOP): TrainingState.STOPPED,
    (TrainingState.ONGOING, TrainingEvent.FINISH): TrainingState.COMPLETED,
    (TrainingState.ONGOING, TrainingEvent.FAIL): TrainingState.ERROR,
    (TrainingState.ONGOING, TrainingEvent.STOP): TrainingState.STOPPED,
    (TrainingState.ONGOING, TrainingEvent.COLLECT): TrainingState.SWAG_ROUND,
    (TrainingState.SWAG_ROUND, TrainingEvent.GO_ON): TrainingState.ONGOING,
    (TrainingState.SWAG_ROUND, TrainingEvent.FAIL): TrainingState.ERROR,
    (TrainingState.SWAG_ROUND, TrainingEvent.STOP): TrainingState.STOPPED,
    (TrainingState.ONGOING, TrainingEvent.PAUSE): TrainingState.PAUSED,
    (TrainingState.SWAG_ROUND, TrainingEvent.PAUSE): TrainingState.PAUSED,
    (TrainingState.PAUSED, TrainingEvent.RESUME): TrainingState.ONGOING,
    (TrainingState.PAUSED, TrainingEvent.STOP): TrainingState.STOPPED,
    (TrainingState.ERROR, TrainingEvent.RETRY): TrainingState.ONGOING,
    (TrainingState.ERROR, TrainingEvent.STOP): TrainingState.STOPPED,
}

ROUND_TRANSITIONS: dict[tuple[RoundState, RoundEvent], RoundState] = {
    (RoundState.WAITING, RoundEvent.ADMIT): RoundState.OPEN,
    (RoundState.WAITING, RoundEvent.RETRY): RoundState.WAITING,
    (RoundState.WAITING, RoundEvent.FAIL): RoundState.FAILED,
    (RoundState.OPEN, RoundEvent.FILL): RoundState.AGGREGATING,
    (RoundState.OPEN, RoundEvent.RELAY): RoundState.CLOSED,
    (RoundState.OPEN, RoundEvent.RETRY): RoundState.OPEN,
    (RoundState.OPEN, RoundEvent.FAIL): RoundState.FAILED,
    (RoundState.AGGREGATING, RoundEvent.TEST): RoundState.TESTING,
    (RoundState.AGGREGATING, RoundEvent.CLOSE): RoundState.CLOSED,
    (RoundState.AGGREGATING, RoundEvent.RETRY): RoundState.OPEN,
    (RoundState.AGGREGATING, RoundEvent.FAIL): RoundState.FAILED,
    (RoundState.AGGREGATING, RoundEvent.COLLECT): RoundState.SWAG,
    (RoundState.SWAG, RoundEvent.FILL): RoundState.MERGING,
    (RoundState.SWAG, RoundEvent.TEST): RoundState.TESTING,
    (RoundState.SWAG, RoundEvent.CLOSE): RoundState.CLOSED,
    (RoundState.SWAG, RoundEvent.FAIL): RoundState.FAILED,
    (RoundState.MERGING, RoundEvent.TEST): RoundState.TESTING,
    (RoundState.MERGING, RoundEvent.CLOSE): RoundState.CLOSED,
    (RoundState.MERGING, RoundEvent.FAIL): RoundState.FAILED,
    (RoundState.TESTING, RoundEvent.CLOSE): RoundState.CLOSED,
    (RoundState.TESTING, RoundEvent.FAIL): RoundState.FAILED,
    (RoundState.FAILED, RoundEvent.RETRY): RoundState.OPEN,
    (RoundState.FAILED, RoundEvent.WAIT): RoundState.WAITING,
}


def next_training_state(state: str, event: TrainingEvent) -> TrainingState:
    """Look the event up; WrongState if nothing of the kind may happen now."""
    try:
        return TRAINING_TRANSITIONS[TrainingState(state), event]
    except KeyError:
        raise WrongState(f"a training in state {state} cannot {event}") from None


def next_round_state(state: str, event: RoundEvent) -> RoundState:
    """Look the event up; WrongState if nothing of the kind may happen now."""
    try:
        return ROUND_TRANSITIONS[RoundState(state), event]
    except KeyError:
        raise WrongState(f"a round in state {state} cannot {event}") from None
