"""Calibration statistics: who may send them and until when, what is made of them, and to whom that is shown."""

from __future__ import annotations

import numpy as np
import pytest

from folkmoot.server.accounts.models import User
from folkmoot.server.registry.calibration import merged_calibration
from folkmoot.server.registry.models import Model
from folkmoot.uncertainty import (
    ClassStatistics,
    RegressionStatistics,
    expected_calibration_error,
    federated_temperature,
    merged,
    temperature_scaled,
    threshold,
    to_json,
)

pytestmark = pytest.mark.django_db

MODELS = "/api/models/"


def rows(seed, count=200):
    """Logits that are three times what they should be, and labels as likely as they should be."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 5))
    return 3 * logits, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


ONE, OTHER, THIRD = (ClassStatistics.of(*rows(seed)) for seed in range(3))
RESIDUALS = RegressionStatistics.of([0.0, 0.0], [1.0, 2.0])


@pytest.fixture
def send(as_):
    def post(scene, user, statistics=ONE, *, round=1):
        body = {"round": round, "statistics": statistics if isinstance(statistics, dict) else to_json(statistics)}
        return as_(user).send("POST", f"{MODELS}{scene.model_id}/calibration/", body)

    return post


@pytest.fixture
def shown(as_):
    def get(scene, user=None, **query):
        return as_(user or scene.actor).get(f"{MODELS}{scene.model_id}/calibration/", query)

    return get


@pytest.fixture
def make_tested(make_scene, work):
    """A training whose first round is aggregated and waits for the metrics of its test."""

    def make(**fields):
        scene = make_scene(**fields)
        for participant in scene.participants:
            assert scene.send_update(participant).status_code == 201
        work()
        return scene

    return make


@pytest.fixture
def scene(make_tested):
    return make_tested()


def end_test(scene, work):
    for participant in scene.participants:
        scene.report(participant, loss=1)
    work()
    assert scene.round_states[0] == "CLOSED"


# Sending


def test_statistics_are_taken_in_a_test_round(scene, send, as_):
    answer = send(scene, scene.participants[0])

    assert (answer.status_code, answer.json()) == (201, {"detail": "Calibration Accepted"})
    assert answer["Location"].endswith(f"{MODELS}{scene.model_id}/calibration/?round=1")
    assert as_(scene.participants[0]).get(answer["Location"]).json()["examples"] == 200


def test_they_are_no_answer_to_the_test(scene, send):
    for participant in scene.participants:
        send(scene, participant)

    assert scene.round_states == ["TESTING"]
    assert scene.asked_of(scene.participants[0]) == ["MODEL_TEST_ROUND"]


def test_the_same_ones_again_change_nothing_even_when_all_is_over(scene, send, work):
    send(scene, scene.participants[0])
    again = send(scene, scene.participants[0])
    end_test(scene, work)
    late = send(scene, scene.participants[0])

    assert [answer.status_code for answer in (again, late)] == [200, 200]
    assert late.json() == {"detail": "Calibration Accepted"}
    assert late["Location"].endswith("/calibration/?round=1")


def test_others_take_their_place_while_the_round_is_tested(scene, send, shown):
    send(scene, scene.participants[0], ONE)
    assert shown(scene).json()["temperature"] == pytest.approx(federated_temperature(ONE))

    assert send(scene, scene.participants[0], OTHER).status_code == 201

    assert shown(scene).json()["participants"] == 1
    assert shown(scene).json()["temperature"] == pytest.approx(federated_temperature(OTHER))


def test_they_may_even_be_of_another_task(make_tested, send, shown):
    scene = make_tested(participants=1)
    send(scene, scene.participants[0], ONE)

    assert send(scene, scene.participants[0], RESIDUALS).status_code == 201
    assert shown(scene).json()["task"] == "regression"


def test_afterwards_others_are_a_conflict(scene, send, work, shown):
    send(scene, scene.participants[0], ONE)
    end_test(scene, work)

    answer = send(scene, scene.participants[0], OTHER)

    sentence = "other calibration statistics of yours count in round 1 already"
    assert (answer.status_code, answer.json()) == (409, {"detail": sentence, "code": "already_submitted"})
    assert shown(scene).json()["temperature"] == pytest.approx(federated_temperature(ONE))


def test_the_first_ones_may_come_when_the_test_is_over(scene, send, work):
    end_test(scene, work)

    assert send(scene, scene.participants[0]).status_code == 201


def test_a_later_round_leaves_those_of_an_earlier_one_alone(make_tested, send, work, shown):
    scene = make_tested(target_num_updates=2)
    send(scene, scene.participants[0], ONE)
    end_test(scene, work)
    for participant in scene.participants:
        scene.send_update(participant, round=1)
    work()

    assert send(scene, scene.participants[0], OTHER, round=1).status_code == 409
    assert send(scene, scene.participants[0], OTHER, round=2).status_code == 201

    temperatures = [shown(scene, round=number).json()["temperature"] for number in (1, 2)]
    assert temperatures == pytest.approx([federated_temperature(ONE), federated_temperature(OTHER)])


def test_only_participants_may_send_them(scene, send, make_user):
    staff = make_user(is_staff=True)
    for user in (scene.actor, staff, make_user()):
        answer = send(scene, user)
        sentence = f"You are not a participant of training {scene.id}!"
        assert (answer.status_code, answer.json()["detail"]) == (403, sentence)

    scene.remove(scene.participants[0])
    assert send(scene, scene.participants[0]).status_code == 403


def test_without_a_training_there_is_nothing_to_calibrate(make_user, make_model, as_):
    ada = make_user()
    model = make_model(ada)
    body = {"round": 0, "statistics": to_json(ONE)}

    answer = as_(ada).send("POST", f"{MODELS}{model.pk}/calibration/", body)

    sentence = f"Model with ID {model.pk} does not have a training process running"
    assert (answer.status_code, answer.json()["detail"]) == (404, sentence)


def test_a_round_that_has_made_no_checkpoint_is_refused(scene, send):
    answer = send(scene, scene.participants[0], round=2)

    assert (answer.status_code, answer.json()["detail"]) == (400, f"round: model {scene.model_id} has no checkpoint 2")


def test_statistics_of_different_tasks_do_not_mix(scene, send):
    one, other = scene.participants
    send(scene, one, ONE)

    answer = send(scene, other, RESIDUALS)

    sentence = "task: expected classes, as other participants have sent it, and not regression"
    assert (answer.status_code, answer.json()["detail"]) == (400, sentence)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"task": "clusters"}, 'task: expected "classes" or "regression"'),
        ({"bin_counts": [1] * 14}, "bin_counts: expected a list of 15 numbers"),
        ({"bin_correct": [201, *[0] * 14]}, "bin_correct[0] is 201, of 0 rows"),
        ({"surprise": 1}, "surprise: unknown field of statistics of classes"),
    ],
)
def test_what_no_rows_can_have_given_is_refused_by_name(scene, send, wrong, sentence):
    answer = send(scene, scene.participants[0], to_json(ONE) | wrong)

    assert (answer.status_code, answer.json()) == (400, {"detail": sentence, "code": "invalid_value"})


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"statistics": to_json(ONE)}, "Missing required field: round"),
        ({"round": 1}, "Missing required field: statistics"),
        ({"round": 1, "statistics": None}, "Missing required field: statistics"),
        ({"round": 1, "statistics": [1]}, "statistics: expected an object"),
        ({"round": -1, "statistics": to_json(ONE)}, "round must be a whole number from 0 to 1000000"),
    ],
)
def test_a_body_without_its_fields_is_refused(scene, as_, body, sentence):
    answer = as_(scene.participants[0]).send("POST", f"{MODELS}{scene.model_id}/calibration/", body)

    assert (answer.status_code, answer.json()["detail"]) == (400, sentence)


def test_more_than_a_mebibyte_is_not_read(scene, send):
    assert send(scene, scene.participants[0], {"task": "x" * 2**20}).status_code == 413


def test_a_form_is_not_taken(scene, as_):
    answer = as_(scene.participants[0]).post(f"{MODELS}{scene.model_id}/calibration/", {"round": 1})

    assert answer.status_code == 415


# What is made of them


def test_all_participants_statistics_are_merged(scene, send, shown):
    one, other = scene.participants
    send(scene, one, ONE)
    send(scene, other, OTHER)
    both = merged([ONE, OTHER])
    scaled = [
        ClassStatistics.of(temperature_scaled(logits, federated_temperature(both)), labels)
        for logits, labels in map(rows, (0, 1))
    ]

    answer = shown(scene).json()

    assert (answer["round"], answer["task"], answer["participants"], answer["examples"]) == (1, "classes", 2, 400)
    assert answer["expected_calibration_error"] == pytest.approx(expected_calibration_error(both))
    assert answer["expected_calibration_error"] > 0.1
    assert answer["temperature"] == pytest.approx(federated_temperature(both))
    # Of the grid's nearest temperature: some rows lie in another bin.
    assert answer["scaled_calibration_error"] == pytest.approx(expected_calibration_error(merged(scaled)), abs=0.03)
    assert answer["scaled_calibration_error"] < answer["expected_calibration_error"] / 2
    assert sum(each["count"] for each in answer["reliability_bins"]) == 400
    limit = threshold(both, 0.9, participants=2)
    assert answer["conformal"] == {"coverage": 0.9, "threshold": limit, "examples": 400, "reason": ""}
    assert merged_calibration(Model.objects.get(pk=scene.model_id), 1) == (1, both, 2)


def test_the_coverage_may_be_chosen(scene, send, shown):
    send(scene, scene.participants[0])

    conformal = shown(scene, coverage=0.5).json()["conformal"]

    assert (conformal["coverage"], conformal["threshold"]) == (0.5, threshold(ONE, 0.5))


def test_where_it_takes_more_examples_the_threshold_is_null_and_says_how_many(scene, send, shown):
    send(scene, scene.participants[0], RESIDUALS)

    conformal = shown(scene).json()["conformal"]

    assert conformal["threshold"] is None
    assert conformal["reason"] == "coverage 0.9 takes 9 scores or more; there are 2"


def test_it_takes_more_of_two_participants_than_of_one(scene, send, shown):
    send(scene, scene.participants[0], RegressionStatistics.of(np.zeros(10), np.arange(10)))
    assert shown(scene).json()["conformal"]["threshold"] is not None

    for participant in scene.participants:
        send(scene, participant, RegressionStatistics.of(np.zeros(5), np.arange(5)))

    assert shown(scene).json()["conformal"]["reason"] == "coverage 0.9 takes 18 scores or more; there are 10"


def test_a_regression_has_intervals_and_nothing_else(scene, send, shown):
    send(scene, scene.participants[0], RESIDUALS)

    answer = shown(scene, coverage=0.5).json()

    assert (answer["task"], answer["examples"]) == ("regression", 2)
    for name in ("expected_calibration_error", "temperature", "scaled_calibration_error", "reliability_bins"):
        assert answer[name] is None
    assert answer["conformal"]["threshold"] == threshold(RESIDUALS, 0.5)


@pytest.mark.parametrize(
    "query",
    [{"coverage": value} for value in ("0", "1", "-1", "nan", "inf", "x", "")] + [{"round": ""}, {"round": "-1"}],
)
def test_a_wrong_parameter_is_refused_by_name(scene, send, shown, query):
    send(scene, scene.participants[0])

    answer = shown(scene, **query)

    assert (answer.status_code, list(answer.json())) == (400, list(query))


# To whom


def test_where_nobody_has_sent_any_there_is_nothing(scene, shown):
    answer = shown(scene)

    sentence = f"There are no calibration statistics for checkpoint 1 of model {scene.model_id} that you may see."
    assert (answer.status_code, answer.json()) == (404, {"detail": sentence, "code": "not_found"})


def test_what_one_participant_has_counted_is_its_own(scene, send, shown, make_user):
    one, other = scene.participants
    owner = make_user()
    Model.objects.filter(pk=scene.model_id).update(owner=owner)
    nothing = {user: shown(scene, user).content for user in (other, owner)}
    send(scene, one)

    for user in (one, scene.actor, make_user(is_staff=True)):
        assert shown(scene, user).status_code == 200
    for user in (other, owner):
        answer = shown(scene, user)
        assert (answer.status_code, answer.content) == (404, nothing[user])
    assert shown(scene, make_user()).status_code == 403


def test_what_two_have_counted_is_shown_to_all_who_may_see_the_model(make_tested, send, shown, make_user):
    scene = make_tested(participants=3)
    one, other, third = scene.participants
    send(scene, one, ONE)
    send(scene, other, OTHER)

    assert shown(scene, third).json()["participants"] == 2
    assert shown(scene, make_user()).status_code == 403


def test_statistics_go_with_the_account_of_who_has_sent_them(make_tested, send, shown):
    scene = make_tested(participants=3)
    for participant, statistics in zip(scene.participants, (ONE, OTHER, THIRD), strict=True):
        send(scene, participant, statistics)
    assert shown(scene).json()["examples"] == 600

    User.objects.get(pk=scene.participants[2].pk).delete()

    assert shown(scene).json()["examples"] == 400
