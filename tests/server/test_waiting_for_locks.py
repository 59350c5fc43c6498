"""Who has waited for another transaction goes by what that has left, and not by what was there before the wait."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import connection, transaction

from folkmoot.protocol.states import Doing
from folkmoot.server.trainings import lifecycle, rounds
from folkmoot.server.trainings.models import Assignment

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

WAITS_FOR_US = "SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"


def after_waiting(change, act):
    """What `act` returns in another thread, which begins before `change` is committed and has to wait for that."""
    answers = []

    def run():
        answers.append(act())
        connection.close()

    thread = threading.Thread(target=run)
    with transaction.atomic():
        change()
        thread.start()
        deadline = time.monotonic() + 60
        while thread.is_alive() and not _somebody_waits_for_us():
            assert time.monotonic() < deadline
    thread.join(60)
    (answer,) = answers
    return answer


def _somebody_waits_for_us():
    with connection.cursor() as cursor:
        cursor.execute(WAITS_FOR_US)
        return cursor.fetchone() is not None


def test_metrics_of_the_model_before_are_no_answer_to_a_test_that_opens_meanwhile(make_scene, as_):
    scene = make_scene(participants=1)
    (participant,) = scene.participants
    scene.send_update(participant)
    metrics = {"metric_names": ["loss"], "metric_values": [1], "round": 0}

    answer = after_waiting(
        lambda: rounds.aggregate(scene.id, 0),
        lambda: as_(participant).post(f"/api/models/{scene.model_id}/metrics/", metrics),
    )

    assert (answer.status_code, scene.round_states) == (201, ["TESTING"])


def test_what_a_participant_says_of_its_work_does_not_undo_an_upload_that_comes_meanwhile(make_scene, as_):
    scene = make_scene()
    participant, _ = scene.participants

    after_waiting(
        lambda: Assignment.objects.filter(user=participant).update(doing=Doing.UPLOADED),
        lambda: as_(participant).send(
            "POST", f"/api/trainings/{scene.id}/progress/", {"round": 0, "state": "training"}
        ),
    )

    assert Assignment.objects.get(user=participant).doing == Doing.UPLOADED


def test_the_model_of_a_training_that_is_tried_again_meanwhile_is_not_removed(make_scene, as_):
    scene = make_scene(options={"round_retries": 0})
    scene.let_deadline_pass()

    answer = after_waiting(
        lambda: lifecycle.try_again(scene.training, by=scene.actor),
        lambda: as_(scene.actor).delete(f"/api/models/{scene.model_id}/"),
    )

    assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
