"""The deadline and the last upload at one moment: an update is in the aggregate if, and only if, it got a 201."""

from __future__ import annotations

import random
import threading
import time
from datetime import timedelta

import pytest
from django.db import connections

from folkmoot.protocol.states import Doing, UpdateStatus
from folkmoot.server.trainings import lifecycle

pytestmark = pytest.mark.django_db(transaction=True)


def at_once(*actions):
    """Run the actions in threads that begin within some ten milliseconds of each other; return what they did."""
    together, done = threading.Barrier(len(actions)), {}

    def run(number, action):
        try:
            together.wait(10)
            time.sleep(random.uniform(0, 0.01))
            done[number] = action()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=each) for each in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(done) == len(actions)
    return [done[number] for number in range(len(actions))]


def race(scene, work, number):
    """In this round one participant is in; the other's upload meets the deadline. Returns whether it came in."""
    quick, slow = scene.participants
    current = scene.training.rounds.get(number=number)
    scene.send_update(quick, round=number, w=[0, 0])

    answer, _ = at_once(
        lambda: scene.send_update(slow, round=number, w=[2, 2]),
        lambda: lifecycle.close_if_overdue(current, current.closes_at + timedelta(seconds=1)),
    )
    work()

    came_in = answer.status_code == 201
    assert came_in or answer.json()["code"] == "round_closed"
    assert scene.weights() == ([1, 1] if came_in else [0, 0])
    sent = current.updates.filter(participant=slow)
    assert [each.status for each in sent] == ([UpdateStatus.ACCEPTED] if came_in else [])
    assert current.assignments.get(user=slow).doing == (Doing.UPLOADED if came_in else Doing.LATE)
    return came_in


@pytest.fixture
def races(make_scene, work):
    """A function: so many races, each in a round of one training; returns whether the upload came in, of each."""

    def run(rounds):
        scene = make_scene(target_num_updates=rounds + 1, options={"tests": "never", "min_updates": 1})
        return [race(scene, work, number) for number in range(rounds)]

    return run


def test_an_update_is_in_the_aggregate_if_and_only_if_it_was_taken(races):
    races(20)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_both_outcomes_of_the_race_are_met_in_a_thousand(races):
    assert set(races(1000)) == {True, False}
