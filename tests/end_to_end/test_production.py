"""A hub of several processes: PostgreSQL, a broker, web processes, workers and the beat."""

from __future__ import annotations

import pytest
from harness import Participants, Production, Worker, play_round, wait_until
from invariants import read
from lines import OF_A_CUT_LINE

UNHANDLED = "SELECT id FROM outbox_event WHERE handled_at IS NULL"


@pytest.mark.parametrize("broker_kind", ["redis", "rabbitmq"])
def test_a_training_runs_to_its_end(production: Production, undisturbed):
    participants = production.participants(2)
    with Participants(production, participants):
        training_id = production.started(participants, rounds=3)
        production.wait_for_end(training_id)

    assert production.weights(training_id)[1] == undisturbed(2, 3)


@pytest.mark.parametrize("broker_kind", ["redis", "rabbitmq"])
def test_a_broker_that_forgets_everything_costs_no_round(production: Production, undisturbed):
    production.place.expected_in_log.append(OF_A_CUT_LINE)
    participants = production.participants(2)
    training_id = production.started(participants, rounds=2)
    wait_until(lambda: not read(production.place, UNHANDLED), "the round to be announced")
    with production.worker.frozen():
        play_round(production, participants, training_id, 0)
        production.place.broker.flush()

    with Participants(production, participants):
        production.wait_for_end(training_id)

    assert production.weights(training_id)[1] == undisturbed(2, 2)


def test_a_worker_that_froze_beyond_its_lease_changes_nothing_when_it_goes_on(production: Production, undisturbed):
    participants = production.participants(2)
    training_id = production.started(participants, rounds=2)
    production.wait_for_round(training_id, 0)
    other = Worker(production.place, "--lanes", "trainings")
    play_round_until_claimed(production, participants, training_id)
    with production.worker.frozen():
        other.start()
        with Participants(production, participants):
            production.wait_for_end(training_id)
    other.terminate()
    production.worker.terminate()

    assert production.weights(training_id)[1] == undisturbed(2, 2)
    handled = read(production.place, "SELECT kind, interruptions FROM outbox_event WHERE attempts > 0")
    assert len(handled) == 7  # of two rounds: opened, full, tested; and the end


def play_round_until_claimed(production: Production, participants, training_id) -> None:
    """Let everybody send, and return as soon as a worker has the round in its hands."""
    play_round(production, participants, training_id, 0)
    claimed = "SELECT id FROM outbox_event WHERE kind = 'round_full' AND attempts > 0"
    wait_until(lambda: read(production.place, claimed), "a worker to claim the round")
