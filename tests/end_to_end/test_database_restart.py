"""R5: PostgreSQL restarts at once, and without a word, in the middle of a round."""

from __future__ import annotations

import pytest
from clusters import OF_A_LOST_DATABASE, cluster
from harness import Participants, Place, make_template
from load import Load

ROUNDS = 4


@pytest.fixture
def database():
    with cluster() as made:
        yield made


@pytest.fixture
def postgres_template(database, tmp_path):
    return make_template(Place(tmp_path / "template", database.url))


@pytest.fixture
def postgres_database(database):
    return database.url


def test_a_database_that_restarts_costs_no_round_and_no_fault_is_told(production, database, undisturbed):
    production.place.expected_in_log.append(OF_A_LOST_DATABASE)
    accounts = production.participants(2)
    training_id = production.create_training(accounts, rounds=ROUNDS)
    with Participants(production, accounts) as participants, Load(production, training_id) as load:
        production.start(training_id)
        for number in range(2):
            load.wait_for_round(number)
            database.control("restart", "-m", "immediate")
        load.wait_for_end()

    assert set(load.statuses) == {200, 503}
    assert load.without_a_word == []
    assert participants.trained == {account.name: list(range(ROUNDS)) for account in accounts}
    assert production.weights(training_id)[1] == undisturbed(2, ROUNDS)
