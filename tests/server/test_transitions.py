"""What may follow what: the two tables of states, in every combination."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

import folkmoot.server
from folkmoot.errors import WrongState
from folkmoot.protocol.states import RoundState, TrainingState
from folkmoot.server.trainings.transitions import (
    ROUND_TRANSITIONS,
    TRAINING_TRANSITIONS,
    RoundEvent,
    TrainingEvent,
    next_round_state,
    next_training_state,
)

TRAINING = {
    ("I", "start"): "O",
    ("I", "stop"): "X",
    ("O", "finish"): "C",
    ("O", "fail"): "E",
    ("O", "stop"): "X",
    ("O", "collect"): "S",
    ("O", "pause"): "P",
    ("S", "pause"): "P",
    ("P", "resume"): "O",
    ("P", "stop"): "X",
    ("E", "retry"): "O",
    ("E", "stop"): "X",
    ("S", "go on"): "O",
    ("S", "fail"): "E",
    ("S", "stop"): "X",
}
ROUND = {
    ("WAITING", "open"): "OPEN",
    ("WAITING", "retry"): "WAITING",
    ("WAITING", "fail"): "FAILED",
    ("OPEN", "fill"): "AGGREGATING",
    ("OPEN", "relay"): "CLOSED",
    ("OPEN", "retry"): "OPEN",
    ("OPEN", "fail"): "FAILED",
    ("AGGREGATING", "test"): "TESTING",
    ("AGGREGATING", "close"): "CLOSED",
    ("AGGREGATING", "retry"): "OPEN",
    ("AGGREGATING", "fail"): "FAILED",
    ("AGGREGATING", "collect"): "SWAG",
    ("SWAG", "fill"): "MERGING",
    ("SWAG", "test"): "TESTING",
    ("SWAG", "close"): "CLOSED",
    ("SWAG", "fail"): "FAILED",
    ("MERGING", "test"): "TESTING",
    ("MERGING", "close"): "CLOSED",
    ("MERGING", "fail"): "FAILED",
    ("TESTING", "close"): "CLOSED",
    ("TESTING", "fail"): "FAILED",
    ("FAILED", "retry"): "OPEN",
    ("FAILED", "wait"): "WAITING",
}


def outcome(look_up, state, event):
    try:
        return str(look_up(state, event))
    except WrongState:
        return None


@pytest.mark.parametrize(("state", "event"), list(product(TrainingState, TrainingEvent)))
def test_a_training_moves_only_as_the_table_says(state, event):
    assert outcome(next_training_state, state, event) == TRAINING.get((state, event))


@pytest.mark.parametrize(("state", "event"), list(product(RoundState, RoundEvent)))
def test_a_round_moves_only_as_the_table_says(state, event):
    assert outcome(next_round_state, state, event) == ROUND.get((state, event))


def test_every_state_of_a_training_but_the_final_ones_has_a_way_out():
    leave = {state for (state, _), following in TRAINING_TRANSITIONS.items() if following != state}

    assert leave == set(TrainingState) - {TrainingState.COMPLETED, TrainingState.STOPPED}


def test_every_state_of_a_round_but_the_final_ones_has_a_way_out():
    leave = {state for (state, _), following in ROUND_TRANSITIONS.items() if following != state}

    assert leave == set(RoundState) - {RoundState.CLOSED}


def test_every_state_can_be_reached():
    assert set(TRAINING_TRANSITIONS.values()) | {TrainingState.INITIAL} == set(TrainingState)
    assert set(ROUND_TRANSITIONS.values()) == set(RoundState)


def test_a_state_is_assigned_in_one_place_alone():
    server = Path(folkmoot.server.__path__[0])
    assigning = re.compile(r"\.state = |[(,]\s*state=(?:Training|Round)State\.\w+\)\.save|update\([^)]*\bstate=")

    found = {path.name for path in server.rglob("*.py") if assigning.search(path.read_text())}

    assert found == {"moves.py"}


def test_what_is_impossible_says_so():
    with pytest.raises(WrongState, match="a training in state C cannot start"):
        next_training_state(TrainingState.COMPLETED, TrainingEvent.START)
