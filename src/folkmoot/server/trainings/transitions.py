"""The tables of states: what may follow what."""

from __future__ import annotations

from enum import StrEnum

from folkmoot.errors import WrongState
from folkmoot.protocol.states import RoundState, TrainingState


class TrainingEvent(StrEnum):
    START = "start"
    FINISH = "finish"
    FAIL = "fail"
    STOP = "stop"


class RoundEvent(StrEnum):
    FILL = "fill"
    """Enough updates are in."""
    RELAY = "relay"
    """Enough updates are in, and they wander on to other participants."""
    TEST = "test"
    """The next model is made, and is to be tested."""
    CLOSE = "close"
    RETRY = "retry"
    """Too few updates in time: ask those who are missing once more."""
    FAIL = "fail"


TRAINING_TRANSITIONS: dict[tuple[TrainingState, TrainingEvent], TrainingState] = {
    (TrainingState.INITIAL, TrainingEvent.START): TrainingState.ONGOING,
    (TrainingState.INITIAL, TrainingEvent.STOP): TrainingState.STOPPED,
    (TrainingState.ONGOING, TrainingEvent.FINISH): TrainingState.COMPLETED,
    (TrainingState.ONGOING, TrainingEvent.FAIL): TrainingState.ERROR,
    (TrainingState.ONGOING, TrainingEvent.STOP): TrainingState.STOPPED,
}

ROUND_TRANSITIONS: dict[tuple[RoundState, RoundEvent], RoundState] = {
    (RoundState.OPEN, RoundEvent.FILL): RoundState.AGGREGATING,
    (RoundState.OPEN, RoundEvent.RELAY): RoundState.CLOSED,
    (RoundState.OPEN, RoundEvent.RETRY): RoundState.OPEN,
    (RoundState.OPEN, RoundEvent.FAIL): RoundState.FAILED,
    (RoundState.AGGREGATING, RoundEvent.TEST): RoundState.TESTING,
    (RoundState.AGGREGATING, RoundEvent.CLOSE): RoundState.CLOSED,
    (RoundState.AGGREGATING, RoundEvent.FAIL): RoundState.FAILED,
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
