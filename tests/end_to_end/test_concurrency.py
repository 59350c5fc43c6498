"""R3, R18 and R23: much of the same at the same instant; nothing is lost, nothing happens twice."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
from pathlib import Path

import pytest
from harness import Participants, at_once, finish, play_round
from invariants import read

import warm

WORKERS = Path(__file__).parent / "workers.py"
on_both = pytest.mark.parametrize("backend", ["sqlite", "postgres"], indirect=True)


def run_workers(world, *command, processes=1):
    """Let these processes work on the world's database at once; return what each of them says."""
    # A lease that no slow machine outlasts: an event that is claimed twice has been given out twice.
    environment = world.place.environment(FOLKMOOT_LEASE_SECONDS="60")
    running = [_started(list(map(str, command)), environment) for _ in range(processes)]
    assert [said.readline() for _, _, said in running] == ["ready\n"] * processes
    for _, told, _ in running:
        told.write("go\n")
        told.close()
    return [_ended(process, said) for process, _, said in running]


def _started(command, environment):
    """A process, what it is told by, and what it says."""
    (reads, tells), (hears, prints) = os.pipe(), os.pipe()
    with os.fdopen(reads), os.fdopen(prints, "w"):
        errors = sys.stderr.fileno()
        process = warm.start(command, program=WORKERS, env=environment, reads=reads, prints=prints, errors=errors)
    return process, os.fdopen(tells, "w"), os.fdopen(hears)


def _ended(process, said):
    with said:
        last_words = said.read()
    assert process.wait(timeout=60) == 0
    return json.loads(last_words)


@on_both
def test_of_many_workers_that_see_the_same_event_one_has_it(world):
    run_workers(world, "record_events", 40)

    handled = run_workers(world, "handle_events", 4, processes=2)

    assert sum(map(sum, handled)) == 40
    attempts = read(world.place, "SELECT attempts FROM outbox_event WHERE kind = 'training_finished'")
    assert [row["attempts"] for row in attempts] == [1] * 40


@pytest.fixture
def stopped_before():
    """A function that plays a round until the server dies as it is to handle an event; three have taken part."""

    def play(world, kind):
        accounts = world.participants(3)
        world.server.start(fault=f"{kind}.claimed")
        training_id = world.create_training(accounts, rounds=1)
        with Participants(world, accounts) as participants:
            world.start_on_a_dying_server(training_id)
            world.server.wait_for_death()
        assert all(len(rounds) <= 1 for rounds in participants.trained.values())
        return training_id, accounts

    return play


KINDS = ("round_opened", "round_full", "test_opened", "training_finished")


@pytest.mark.parametrize(
    ("backend", "kind"),
    [*(("sqlite", kind) for kind in KINDS), *(("postgres", kind) for kind in KINDS[:2])],
    indirect=["backend"],
)
def test_an_event_that_is_handled_ten_times_has_its_consequences_once(world, stopped_before, kind):
    training_id, accounts = stopped_before(world, kind)

    run_workers(world, "handle_again", kind, 5)

    said = read(world.place, "SELECT recipient_id, type, round, attempt FROM notifications_notification")
    assert len({tuple(row.values()) for row in said}) == len(said)
    world.server.start()
    finish(world, accounts, training_id)
    assert len(read(world.place, "SELECT * FROM registry_checkpoint")) == 2


def test_many_workers_on_the_event_of_a_full_round_make_one_model(world, stopped_before, undisturbed):
    training_id, accounts = stopped_before(world, "round_full")

    run_workers(world, "handle_events", 3, processes=2)

    (event,) = read(world.place, "SELECT * FROM outbox_event WHERE kind = 'round_full'")
    assert event["attempts"] == 2  # the server that died, and one of the workers
    world.server.start()
    finish(world, accounts, training_id)
    assert world.weights(training_id)[1] == undisturbed(3, 1)


@on_both
def test_eight_updates_at_the_same_instant_all_count_once_in_twenty_rounds(world):
    accounts = world.participants(8)
    world.server.start()
    training_id = world.started(accounts, rounds=20, tests="never")

    for number in range(20):
        updates = world.updates_of(accounts, training_id, number)
        answers = at_once(*[lambda update=update: world.send(update) for update in updates])
        assert [answer.status_code for answer in answers] == [201] * 8
        world.wait_for_round(training_id, number, "CLOSED")

    training = world.wait_for_end(training_id)
    assert [len(each["arrived"]) for each in training["rounds"]] == [8] * 20


@on_both
def test_eight_transactions_at_the_same_instant_fill_each_of_twenty_rounds(world):
    """Without HTTP in between, which would put them one after another: this fails without the lock on the training."""
    world.server.start()
    training_id = world.started(world.participants(8), rounds=20, tests="never")
    world.server.kill()

    (counts,) = run_workers(world, "fill_rounds", training_id, 20)

    assert counts == [8] * 20
    world.server.start()
    assert world.training(training_id)["state"] == "C"


@on_both
def test_eight_answers_to_a_test_at_the_same_instant_close_it_once(world):
    accounts = world.participants(8)
    world.server.start()
    training_id = world.started(accounts, rounds=2)
    play_round(world, accounts, training_id, 0)
    world.wait_for_round(training_id, 0, "TESTING")

    answers = at_once(*[lambda who=who: world.answer_test(who, training_id) for who in accounts])

    assert [answer.status_code for answer in answers] == [201] * 8
    world.wait_for_round(training_id, 1)


@on_both
def test_of_ten_starts_at_once_one_starts(world):
    world.server.start()
    training_id = world.create_training(world.participants(1), rounds=1)
    path = f"/api/trainings/{training_id}/start/"

    answers = at_once(*[lambda: world.call(world.actor, "POST", path)] * 10)

    assert sorted(answer.status_code for answer in answers) == [202] + [400] * 9
    assert [each["number"] for each in world.training(training_id)["rounds"]] == [0]


def test_twenty_writers_at_once_are_all_served(world):
    world.server.start()
    ann = world.accounts["ann"]
    starts = [f"/api/trainings/{world.create_training([ann], rounds=1)}/start/" for _ in range(5)]
    path = f"/api/models/{world.model_id}/metrics/"
    form = {"metric_names": ["loss"], "metric_values": ["1"]}

    answers = at_once(
        *[lambda: world.call(world.actor, "POST", path, data=form)] * 10,
        *[lambda start=start: world.call(ann, "POST", start) for start in starts],
        *[lambda: world.call(world.actor, "POST", "/api/tokens/", json={"name": "more"})] * 5,
    )

    assert [answer.status_code for answer in answers] == [201] * 10 + [202] * 5 + [201] * 5


def test_while_someone_else_holds_the_database_writers_are_told_to_come_again_and_then_served(world):
    world.server.start()
    accounts = world.participants(2)
    training_id = world.started(accounts, rounds=1, tests="never")
    updates = [world.update_of(account, training_id, 0) for account in accounts]
    world.place.expected_in_log.append(
        r"the database does not answer; trying again\nTraceback[\s\S]*database is locked"
    )

    with contextlib.closing(sqlite3.connect(world.place.sqlite, isolation_level=None)) as someone_else:
        someone_else.execute("BEGIN IMMEDIATE")
        refused = at_once(*[lambda update=update: world.send(update) for update in updates])
        reading = world.call(world.actor, "GET", f"/api/trainings/{training_id}/")

    assert [answer.status_code for answer in refused] == [503, 503]
    assert [int(answer.headers["Retry-After"]) > 0 for answer in refused] == [True, True]
    assert {answer.json()["code"] for answer in refused} == {"unavailable"}
    assert reading.json()["local_models_arrived"] == 0
    assert [world.send(update).status_code for update in updates] == [201, 201]
    world.wait_for_end(training_id)
