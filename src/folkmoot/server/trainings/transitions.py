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
    FINISH = "finish"
    FAIL = "fail"
    STOP = "stop"


class RoundEvent(StrEnum):
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
    """Too few updates in time, or too few that are whole: ask those who are missing once more."""
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
}

ROUND_TRANSITIONS: dict[tuple[RoundState, RoundEvent], RoundState] = {
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
