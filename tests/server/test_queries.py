"""Lists ask the database as often for many rows as for few."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

pytestmark = pytest.mark.django_db


@pytest.fixture
def queries(as_):
    def count(user, path):
        with CaptureQueriesContext(connection) as captured:
            assert as_(user).get(path).status_code == 200
        return len(captured)

    return count


@pytest.fixture
def busy(make_user, make_scene, work):
    """A function that gives an actor trainings with a round behind them and one ahead."""
    actor = make_user()

    def add(number):
        for _ in range(number):
            scene = make_scene(actor=actor, target_num_updates=2, options={"tests": "never"})
            for participant in scene.participants:
                scene.send_update(participant)
            work()
        return actor, scene

    return add


@pytest.mark.parametrize("path", ["trainings/", "models/", "users/", "tokens/", "notifications/?after=0"])
def test_a_list_of_many_takes_no_more_queries_than_one_of_few(queries, busy, path):
    actor, _ = busy(1)
    queries(actor, f"/api/{path}")
    few = queries(actor, f"/api/{path}")
    busy(4)

    assert queries(actor, f"/api/{path}") == few


def test_a_training_of_many_takes_no_more_queries_than_one_of_few(queries, make_scene, make_user, work):
    scenes = [make_scene(participants=number) for number in (1, 6)]
    for scene in scenes:
        for participant in scene.participants:
            scene.send_update(participant, metric_names=["loss"], metric_values=[1])
        queries(scene.actor, f"/api/trainings/{scene.id}/")

    few, many = (queries(scene.actor, f"/api/trainings/{scene.id}/") for scene in scenes)

    assert many == few


def test_a_poll_that_finds_nothing_is_cheap(queries, make_user):
    user = make_user()
    queries(user, "/api/notifications/")

    assert queries(user, "/api/notifications/?after=0") <= 3
