"""What a round's metrics come to, and who sees how much of it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.django_db

NOTHING = {"std": None, "min": None, "max": None, "num_examples": None, "worst": None}


@pytest.fixture
def rounds(as_):
    """A function: the rounds of a scene's training as a user sees them."""

    def look(scene, user=None, query=""):
        answer = as_(user or scene.actor).get(f"/api/trainings/{scene.id}/rounds/{query}")
        assert answer.status_code == 200, answer.content
        return answer.json()

    return look


def trained(scene, work, *, round=0, examples=(3, 1), **fields):
    for participant, sample_size in zip(scene.participants, examples, strict=True):
        assert scene.send_update(participant, round=round, sample_size=sample_size, **fields).status_code == 201
    work()


def named(**metrics):
    return {"metric_names": list(metrics), "metric_values": list(metrics.values())}


def test_a_closed_round_shows_what_its_metrics_come_to(make_scene, work, rounds):
    scene = make_scene()
    one, other = scene.participants
    scene.send_update(one, sample_size=3, **named(loss=1.0))
    scene.send_update(other, sample_size=1, **named(loss=5.0))
    work()
    scene.report(one, accuracy=0.5)
    scene.report(other, accuracy=0.9)
    work()

    (shown,) = rounds(scene)

    assert (shown["number"], shown["state"], shown["cohort_size"], shown["received"]) == (0, "CLOSED", 2, 2)
    loss, accuracy = shown["metrics"]["train"]["loss"], shown["metrics"]["test"]["accuracy"]
    assert (loss["mean"], loss["min"], loss["max"], loss["num_examples"]) == (2.0, 1.0, 5.0, 4)
    assert loss["worst"] == str(other.pk)
    assert (accuracy["mean"], accuracy["worst"]) == (pytest.approx(0.6), str(one.pk))


def test_an_open_round_says_who_is_missing(make_scene, work, rounds):
    scene = make_scene()
    one, other = scene.participants
    scene.send_update(one)
    work()

    (shown,) = rounds(scene)

    assert (shown["state"], shown["received"]) == ("OPEN", 1)
    assert shown["missing"] == [{"id": str(other.pk), "username": other.username, "state": "assigned"}]
    assert shown["metrics"] == {"train": {}, "test": {}}


def test_a_participant_sees_the_mean_and_nobody_elses_values(make_scene, work, rounds, as_):
    scene = make_scene()
    one, other = scene.participants
    trained(scene, work)
    scene.report(one, accuracy=0.5, own=1)
    scene.report(other, accuracy=0.9)
    work()

    (shown,) = rounds(scene, other)
    detail = as_(other).get(f"/api/trainings/{scene.id}/").json()

    tested = shown["metrics"]["test"]
    assert tested["accuracy"] == {"mean": pytest.approx(0.6), "count": 2, "left_out": 0, **NOTHING}
    assert tested["own"] == {"mean": None, "count": 1, "left_out": 0, **NOTHING}
    assert detail["rounds"][0]["metrics"]["test"] == {str(other.pk): {"accuracy": 0.9}}


def test_a_test_is_weighed_by_the_examples_that_were_tested_where_these_are_said(make_scene, work, rounds):
    scene = make_scene()
    one, other = scene.participants
    trained(scene, work)
    scene.report(one, accuracy=0.0, num_examples=1)
    scene.report(other, accuracy=1.0, num_examples=9)
    work()

    (shown,) = rounds(scene)

    assert shown["metrics"]["test"].keys() == {"accuracy"}
    assert shown["metrics"]["test"]["accuracy"]["mean"] == pytest.approx(0.9)


def test_who_sent_no_update_in_a_round_weighs_as_with_its_last_one_and_else_as_one_example(make_scene, work, rounds):
    scene = make_scene(participants=3, target_num_updates=2, options={"min_updates": 2})
    one, other, never = scene.participants
    for number, senders in enumerate([{one: 6, other: 2}, {one: 7, never: 1}]):
        for participant, sample_size in senders.items():
            scene.send_update(participant, round=number, sample_size=sample_size)
        scene.let_deadline_pass()
        for participant, accuracy in {one: 0.0, other: 1.0, never: 1.0}.items():
            scene.report(participant, accuracy=accuracy)
        work()

    first, second = (each["metrics"]["test"]["accuracy"] for each in rounds(scene))

    assert (first["num_examples"], first["mean"]) == (6 + 2 + 1, pytest.approx(3 / 9))
    assert (second["num_examples"], second["mean"]) == (7 + 2 + 1, pytest.approx(3 / 10))


def test_values_that_are_not_finite_are_left_out_and_counted(make_scene, work, rounds):
    scene = make_scene()
    one, other = scene.participants
    trained(scene, work)
    scene.report(one, loss="nan", note="text")
    scene.report(other, loss=2)
    work()

    (shown,) = rounds(scene)

    assert shown["metrics"]["test"].keys() == {"loss"}
    loss = shown["metrics"]["test"]["loss"]
    assert (loss["mean"], loss["count"], loss["left_out"]) == (2.0, 1, 1)


def test_rounds_of_local_models_that_wander_have_their_metrics_too(make_scene, work, rounds):
    scene = make_scene(options={"daisy_chain_period": 2, "tests": "never"})
    for number in range(2):
        for participant, loss in zip(scene.participants, (1.0, 3.0), strict=True):
            scene.send_update(participant, round=number, **named(loss=loss + number))
        work()

    assert [each["metrics"]["train"]["loss"]["mean"] for each in rounds(scene)] == [2.0, 3.0]


def test_rounds_can_be_filtered_and_paged(make_scene, work, rounds):
    scene = make_scene(target_num_updates=3, options={"tests": "never"})
    for number in range(2):
        trained(scene, work, round=number)

    assert [each["number"] for each in rounds(scene, query="?state=CLOSED")] == [0, 1]
    assert [each["number"] for each in rounds(scene, query="?ordering=-number&limit=2")] == [2, 1]


# Answers to a test that is over


def test_a_late_answer_to_one_test_is_none_to_the_next(make_scene, work, as_):
    scene = make_scene(target_num_updates=2, participants=1)
    (participant,) = scene.participants
    for number in range(2):
        trained(scene, work, round=number, examples=(1,))
        if number == 0:
            scene.report(participant, loss=3)
            work()

    late = {**named(loss=9.0), "round": 1}
    answer = as_(participant).post(f"/api/models/{scene.model_id}/metrics/", late)

    assert answer.status_code == 201
    assert scene.round_states == ["CLOSED", "TESTING"]
    noted = as_(participant).get(f"/api/models/{scene.model_id}/metrics/").json()
    assert [(each["value_float"], each["step"], each["phase"]) for each in noted] == [
        (3.0, 1, "test"),
        (9.0, 1, "other"),
    ]


def test_an_answer_that_names_the_round_that_is_tested_closes_it(make_scene, work, as_):
    scene = make_scene(participants=1)
    trained(scene, work, examples=(1,))

    as_(scene.participants[0]).post(f"/api/models/{scene.model_id}/metrics/", {**named(loss=9.0), "round": 1})

    assert scene.state == "C"


@pytest.mark.parametrize("round", ["-1", "x", "1000001"])
def test_a_round_that_cannot_be_is_refused(make_scene, as_, round):
    scene = make_scene()

    answer = as_(scene.participants[0]).post(
        f"/api/models/{scene.model_id}/metrics/", {**named(loss=9.0), "round": round}
    )

    assert (answer.status_code, answer.json()["detail"]) == (400, "round must be a whole number from 0 to 1000000")
