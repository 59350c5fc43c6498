"""R4: a hub without its broker, which has forgotten everything once it is back."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from harness import Participants, Place, play_round, wait_until
from invariants import read
from lines import OF_A_CUT_LINE, Line

IN_HAND = "SELECT id FROM outbox_event WHERE attempts > 0 AND handled_at IS NULL"


def hold_up(place: Place) -> psycopg.Connection:
    """Whoever is to change a training waits until the connection is closed."""
    connection = psycopg.connect(place.database_url)
    connection.execute("SELECT FROM trainings_training FOR UPDATE")
    return connection


@pytest.mark.parametrize("broker_kind", ["redis", "rabbitmq"])
def test_a_hub_whose_broker_goes_in_the_middle_of_an_event_takes_updates_and_carries_on(idle_production, undisturbed):
    production, place = idle_production, idle_production.place
    line = Line(place.broker.url)
    place.broker = replace(place.broker, url=line.url)
    place.expected_in_log.append(OF_A_CUT_LINE)
    production.start_all()
    accounts = production.participants(2)
    with production.worker.frozen():
        training_id = production.started(accounts, rounds=2)
        lock = hold_up(place)
    wait_until(lambda: read(place, IN_HAND), "the worker to be at an event")

    with line.cut():
        lock.close()
        wait_until(lambda: not read(place, IN_HAND), "the event to be handled")
        play_round(production, accounts, training_id, 0)
        ready = production.call(None, "GET", "/readyz")
        place.broker.flush()

    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    with Participants(production, accounts):
        production.wait_for_end(training_id, seconds=60)
    assert production.weights(training_id)[1] == undisturbed(2, 2)
