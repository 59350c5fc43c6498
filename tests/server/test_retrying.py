"""A training that ended with an error is tried again: what came in is kept, and the step that failed is taken anew."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from folkmoot.protocol.reasons import ReasonCode
from folkmoot.server.trainings import lifecycle
from folkmoot.server.trainings.models import Round

pytestmark = pytest.mark.django_db


@pytest.fixture
def without_quorum(make_scene):
    """A training of which one participant has answered, and which has failed for want of the other."""
    scene = make_scene(options={"round_retries": 0, "tests": "never"})
    scene.send_update(scene.participants[0], w=(3, 5))
    scene.let_deadline_pass()
    return scene


def test_an_error_has_a_code_beside_its_sentence(without_quorum):
    assert without_quorum.state == "E"
    assert without_quorum.shown["reason_code"] == "quorum"


def test_the_round_opens_anew_and_keeps_what_came_in(without_quorum, work):
    scene = without_quorum
    one, other = scene.participants

    answer = scene.command("retry")
    work()

    assert (answer.status_code, answer.json()) == (202, {"detail": "Training retried!"})
    assert (scene.state, scene.round_states) == ("O", ["OPEN"])
    assert (scene.shown["reason"], scene.shown["reason_code"], scene.shown["local_models_arrived"]) == ("", "", 1)
    assert (scene.asked_of(one), scene.asked_of(other)) == ([], ["UPDATE_ROUND_START"])
    assert scene.send_update(one, w=(3, 5)).status_code == 200
    scene.send_update(other, w=(5, 9))
    work()
    assert (scene.state, scene.weights()) == ("C", [4, 7])


def test_a_round_that_is_tried_again_is_open_since_then(without_quorum):
    long_ago = timezone.now() - timedelta(days=9)
    Round.objects.update(opened_at=long_ago)

    without_quorum.command("retry")

    assert without_quorum.training.rounds.get().opened_at > long_ago


def test_its_attempts_count_from_the_beginning(make_scene, work):
    scene = make_scene(options={"round_retries": 1})
    for _ in range(2):
        scene.let_deadline_pass()
    assert scene.state == "E"
    scene.command("retry")
    work()

    scene.let_deadline_pass()
    assert scene.state == "O"
    scene.let_deadline_pass()

    assert scene.state == "E"
    told = [body["attempt"] for kind, body in scene.told(scene.participants[0]) if kind == "UPDATE_ROUND_START"]
    assert told == [1, 2, 3, 4]


def test_others_may_be_found_in_place_of_who_was_missing(without_quorum, make_user, work):
    scene = without_quorum
    one, other = scene.participants
    new = make_user()
    scene.add(new)
    scene.remove(other)

    scene.command("retry")
    work()

    assert (scene.asked_of(one), scene.asked_of(other), scene.asked_of(new)) == ([], [], ["UPDATE_ROUND_START"])
    scene.send_update(new, w=(5, 9))
    work()
    assert (scene.state, scene.weights()) == ("C", [4, 7])


def test_a_training_that_nobody_was_left_in_goes_on_with_others(make_scene, make_user, work):
    scene = make_scene(options={"tests": "never"})
    scene.remove(*scene.participants)
    assert (scene.state, scene.shown["reason_code"]) == ("E", "no_participants")
    scene.add(new := make_user())

    scene.command("retry")
    work()

    assert scene.asked_of(new) == ["UPDATE_ROUND_START"]


def test_a_round_that_could_not_open_is_opened(make_scene, make_user, work):
    scene = make_scene(target_num_updates=2)
    for participant in scene.participants:
        scene.send_update(participant)
    work()
    scene.remove(*scene.participants)
    assert (scene.state, scene.round_states) == ("E", ["CLOSED"])
    scene.add(make_user())

    scene.command("retry")

    assert (scene.state, scene.round_states) == ("O", ["CLOSED", "OPEN"])


def test_an_aggregation_that_failed_is_tried_again(make_scene, meanwhile, work):
    scene = make_scene(aggregation_method="Interrupted", options={"tests": "never", "min_updates": 1})
    one, _ = scene.participants
    scene.send_update(one, w=(3, 5))
    meanwhile.append(lambda: lifecycle.fail(scene.id, "The disk was on fire.", code=ReasonCode.STORAGE))
    scene.let_deadline_pass()
    assert (scene.state, scene.round_states) == ("E", ["FAILED"])

    scene.command("retry")
    assert scene.round_states == ["AGGREGATING"]
    work()

    assert (scene.state, scene.weights()) == ("C", [3, 5])


def test_a_test_that_failed_is_tried_again_with_the_answers_that_came(make_scene, work):
    scene = make_scene()
    one, other = scene.participants
    for participant in scene.participants:
        scene.send_update(participant)
    work()
    scene.report(one, loss=1)
    lifecycle.fail(scene.id, "The server failed.", code=ReasonCode.INTERNAL)

    scene.command("retry")
    work()

    assert scene.round_states == ["TESTING"]
    assert scene.asked_of(other) == ["MODEL_TEST_ROUND"]
    scene.report(other, loss=1)
    assert scene.state == "C"


@pytest.mark.parametrize("sent", [0, 1])
def test_a_swag_step_that_failed_is_taken_again(make_scene, work, as_, sent):
    scene = make_scene(uncertainty_method="SWAG", options={"tests": "never"})
    for participant in scene.participants:
        scene.send_update(participant)
    work()
    path = f"/api/models/{scene.model_id}/swag/"
    for participant in scene.participants[:sent]:
        as_(participant).post(path, {"round": 1, "sample_size": 0})
    lifecycle.fail(scene.id, "The server failed.", code=ReasonCode.INTERNAL)

    scene.command("retry")
    work()

    assert (scene.state, scene.round_states) == ("S", ["SWAG"])
    for participant in scene.participants[sent:]:
        assert scene.asked_of(participant) == ["SWAG_ROUND_START"]
        assert as_(participant).post(path, {"round": 1, "sample_size": 0}).status_code == 201
    assert scene.state == "C"


def test_who_gives_up_stops_a_training_that_has_failed(without_quorum, as_):
    assert without_quorum.command("stop").status_code == 202
    assert without_quorum.state == "X"
    (row,) = as_(without_quorum.actor).get(f"/api/trainings/{without_quorum.id}/updates/").json()
    assert (row["status"], row["reason"]) == ("late", "the training was stopped")


def test_only_what_has_failed_is_tried_again(make_scene):
    scene = make_scene()

    answer = scene.command("retry")

    assert (answer.status_code, answer.json()["detail"]) == (400, f"Training {scene.id} is not in state ERROR!")


def test_without_its_model_a_training_is_not_tried_again(without_quorum, as_):
    scene = without_quorum
    assert as_(scene.actor).delete(f"/api/models/{scene.model_id}/").status_code == 200

    answer = scene.command("retry")

    assert (answer.status_code, answer.json()["code"]) == (400, "wrong_state")
    assert "its model was removed" in answer.json()["detail"]
