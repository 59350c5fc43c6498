"""A training from its start to its end, as its actor and its participants see it; the test does the worker's part."""

from __future__ import annotations

import io

import numpy as np
import pytest

from folkmoot.server.registry.models import Checkpoint
from folkmoot.server.trainings import rounds

pytestmark = pytest.mark.django_db


def notified(*messages, model):
    """What one is told: pairs of type and body without the model, which is in each of them."""
    return [(kind, {**body, "global_model_uuid": str(model)}) for kind, body in messages]


# A whole training


def test_a_training_ends_with_the_weighted_mean_of_its_updates(make_scene, work):
    scene = make_scene(options={"tests": "never"})
    one, other = scene.participants

    scene.send_update(one, w=[0, 4], sample_size=1)
    scene.send_update(other, w=[4, 8], sample_size=3)
    work()

    assert scene.state == "C"
    assert scene.weights() == [3, 7]


def test_a_participant_hears_of_each_step_in_order(make_scene, work):
    scene = make_scene(target_num_updates=2, options={"local": {"epochs": 5}})
    for number in range(2):
        for participant in scene.participants:
            scene.send_update(participant, round=number)
        work()
        for participant in scene.participants:
            scene.report(participant, loss=1)
        work()

    assert scene.state == "C"
    for participant in scene.participants:
        assert scene.told(participant) == notified(
            ("TRAINING_START", {}),
            ("UPDATE_ROUND_START", {"round": 0, "attempt": 1, "local": {"epochs": 5}}),
            ("MODEL_TEST_ROUND", {"round": 1}),
            ("UPDATE_ROUND_START", {"round": 1, "attempt": 1, "local": {"epochs": 5}}),
            ("MODEL_TEST_ROUND", {"round": 2}),
            ("TRAINING_FINISHED", {}),
            model=scene.model_id,
        )
    assert scene.told(scene.actor) == notified(("TRAINING_FINISHED", {}), model=scene.model_id)


@pytest.mark.parametrize(
    ("tests", "told"),
    [
        ("every_round", ["UPDATE", "MODEL_TEST", "UPDATE", "MODEL_TEST"]),
        ("final", ["UPDATE", "UPDATE", "MODEL_TEST"]),
        ("never", ["UPDATE", "UPDATE"]),
    ],
)
def test_models_are_tested_as_often_as_the_options_say(make_scene, work, tests, told):
    scene = make_scene(participants=1, target_num_updates=2, options={"tests": tests})
    (participant,) = scene.participants
    for number in range(2):
        scene.send_update(participant, round=number)
        work()
        scene.report(participant, loss=1)
        work()

    rounds_told = [kind.removesuffix("_ROUND_START").removesuffix("_ROUND") for kind in scene.types_told(participant)]
    assert rounds_told == ["TRAINING_START", *told, "TRAINING_FINISHED"]


def test_an_actor_that_takes_part_hears_of_the_end_once(make_scene, make_user, work):
    actor = make_user()
    scene = make_scene(actor=actor, participants=[actor], options={"tests": "never"})

    scene.send_update(actor)
    work()

    assert scene.types_told(actor) == ["TRAINING_START", "UPDATE_ROUND_START", "TRAINING_FINISHED"]


def test_rounds_count_on_from_the_models_own(make_scene, make_model, make_user, work):
    actor = make_user()
    scene = make_scene(
        actor=actor, model=make_model(actor, round=5), participants=1, target_num_updates=2, options={"tests": "never"}
    )
    (participant,) = scene.participants
    for number in (5, 6):
        assert scene.send_update(participant, round=number).status_code == 201
        work()

    assert scene.state == "C"
    assert [each["number"] for each in scene.shown["rounds"]] == [5, 6]


def test_a_round_waits_for_everyone(make_scene, work):
    scene = make_scene()

    scene.send_update(scene.participants[0])
    work()

    assert scene.round_states == ["OPEN"]
    shown = scene.shown
    assert (shown["local_models_arrived"], shown["local_models_expected"]) == (1, 2)
    assert shown["rounds"][0]["arrived"] == [str(scene.participants[0].pk)]


def test_a_training_is_locked_while_a_round_is_aggregated(make_scene, work):
    scene = make_scene(target_num_updates=2, options={"tests": "never"})
    for participant in scene.participants:
        scene.send_update(participant)

    assert (scene.shown["locked"], scene.round_states) == (True, ["AGGREGATING"])
    work()
    assert (scene.shown["locked"], scene.round_states) == (False, ["CLOSED", "OPEN"])


def test_metrics_are_shown_with_their_round(make_scene, work):
    scene = make_scene(participants=1)
    (participant,) = scene.participants
    scene.send_update(participant, metric_names=["loss", "epoch_loss"], metric_values=["0.5", "nan"])
    work()
    scene.report(participant, accuracy=0.75)
    work()

    who = str(participant.pk)
    assert scene.shown["rounds"][0]["metrics"] == {
        "train": {who: {"loss": 0.5, "epoch_loss": None}},
        "test": {who: {"accuracy": 0.75}},
    }


# Updates


def test_an_update_is_taken_and_named(make_scene):
    scene = make_scene()

    answer = scene.send_update(scene.participants[0], owner="whoever")

    update = scene.training.rounds.get().updates.get()
    assert answer.status_code == 201
    assert answer.json() == {"detail": "Model Update Accepted", "update_id": str(update.pk)}
    assert answer["Location"].endswith(f"/api/models/{scene.model_id}/")
    assert update.participant == scene.participants[0]


def test_who_has_sent_an_update_is_asked_for_nothing_more(make_scene):
    scene = make_scene()
    one, other = scene.participants

    scene.send_update(one)

    assert (scene.asked_of(one), scene.asked_of(other)) == ([], ["UPDATE_ROUND_START"])


def test_an_update_may_be_an_npz(make_scene, work):
    scene = make_scene(participants=1, options={"tests": "never"})
    file = io.BytesIO()
    np.savez(file, w=np.array([5, 6], "f4"))

    assert scene.send_update(scene.participants[0], file=file.getvalue()).status_code == 201
    work()

    assert scene.weights() == [5, 6]


def test_the_same_bytes_again_get_the_same_answer(make_scene):
    scene = make_scene()
    first = scene.send_update(scene.participants[0])

    second = scene.send_update(scene.participants[0])

    assert (second.status_code, second.json()) == (200, first.json())


def test_the_same_bytes_again_get_the_same_answer_long_after(make_scene, work):
    scene = make_scene(participants=1, options={"tests": "never"})
    first = scene.send_update(scene.participants[0])
    work()

    second = scene.send_update(scene.participants[0])

    assert scene.state == "C"
    assert (second.status_code, second.json()) == (200, first.json())


def test_other_bytes_than_the_first_are_refused(make_scene):
    scene = make_scene()
    scene.send_update(scene.participants[0], w=[1, 1])

    answer = scene.send_update(scene.participants[0], w=[2, 2])

    assert answer.status_code == 409
    assert answer.json()["code"] == "already_submitted"


def test_a_stranger_sends_no_update(make_scene, make_user):
    scene = make_scene()

    answer = scene.send_update(make_user())

    assert answer.status_code == 403
    assert scene.shown["local_models_arrived"] == 0


def test_who_may_see_the_model_but_takes_no_part_is_told_so(make_scene):
    scene = make_scene()

    answer = scene.send_update(scene.actor)

    assert answer.status_code == 403
    assert answer.json()["detail"] == f"You are not a participant of training {scene.id}!"


def test_an_update_before_the_start_is_refused(make_scene):
    scene = make_scene(started=False)

    answer = scene.send_update(scene.participants[0])

    assert answer.status_code == 400
    assert answer.json() == {"detail": f"Training with ID {scene.id} is in state I", "code": "wrong_state"}


def test_an_update_after_the_end_is_refused(make_scene, work):
    scene = make_scene(participants=1, options={"tests": "never"})
    scene.send_update(scene.participants[0])
    work()

    answer = scene.send_update(scene.participants[0], round=1)

    assert answer.status_code == 400
    assert answer.json() == {"detail": f"Training with ID {scene.id} is in state C", "code": "wrong_state"}


def test_an_update_for_a_later_round_is_refused(make_scene):
    scene = make_scene()

    answer = scene.send_update(scene.participants[0], round=1)

    assert answer.status_code == 400
    assert answer.json() == {
        "detail": f"Training with ID {scene.id} is not currently in round 1",
        "code": "round_not_open",
    }


def test_an_update_for_a_round_that_is_over_is_refused(make_scene, make_user, work):
    scene = make_scene(participants=1, target_num_updates=2, options={"tests": "never"})
    scene.send_update(scene.participants[0])
    work()
    scene.add(late := make_user())

    answer = scene.send_update(late, round=0)

    assert answer.status_code == 400
    assert answer.json() == {
        "detail": f"Training with ID {scene.id} is not currently in round 0",
        "code": "round_closed",
    }


SAMPLE_SIZE = "sample_size must be a whole number from 1 to 1000000000"


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("sample_size", "0", SAMPLE_SIZE),
        ("sample_size", "-3", SAMPLE_SIZE),
        ("sample_size", "nan", SAMPLE_SIZE),
        ("sample_size", "many", SAMPLE_SIZE),
        ("sample_size", "1.5", SAMPLE_SIZE),
        ("sample_size", "1000000001", SAMPLE_SIZE),
        ("sample_size", "9" * 5000, SAMPLE_SIZE),
        ("sample_size", "", SAMPLE_SIZE),
        ("round", "-1", "round must be a whole number from 0 to 1000000"),
        ("round", "", "round must be a whole number from 0 to 1000000"),
        ("model_file", "text", "No uploaded file 'model_file' found."),
        ("metric_names", ["loss"], "Metric names and values must have the same length"),
    ],
)
def test_what_is_wrong_with_an_update_is_said(make_scene, field, value, sentence):
    scene = make_scene()

    answer = scene.send_update(scene.participants[0], **{field: value})

    assert answer.status_code == 400
    assert answer.json()["detail"] == sentence
    assert scene.shown["local_models_arrived"] == 0


@pytest.mark.parametrize("missing", ["round", "sample_size", "model_file"])
def test_what_is_missing_of_an_update_is_named(make_scene, as_, tensors_file, missing):
    scene = make_scene()
    file = io.BytesIO(tensors_file(w=[1, 2]))
    fields = {"round": 0, "sample_size": 1, "model_file": file}
    del fields[missing]

    answer = as_(scene.participants[0]).post(f"/api/models/{scene.model_id}/", fields)

    assert answer.status_code == 400
    assert missing in answer.json()["detail"]


@pytest.mark.parametrize(
    ("tensors", "code", "named"),
    [
        ({}, "invalid_file", ""),
        ({"v": [1, 2]}, "schema_mismatch", "w"),
        ({"w": [1, 2], "extra": 1}, "schema_mismatch", "extra"),
        ({"w": [1, 2, 3]}, "schema_mismatch", "w is (3,), expected (2,)"),
        ({"w": 1}, "schema_mismatch", "w is (), expected (2,)"),
        ({"w": [[1, 2]]}, "schema_mismatch", "w is (1, 2), expected (2,)"),
        ({"w": [1, np.nan]}, "non_finite", "w holds nan at [1]"),
        ({"w": [-np.inf, 1]}, "non_finite", "w holds -inf at [0]"),
    ],
)
def test_an_update_that_does_not_fit_is_refused_with_what_is_wrong(make_scene, tensors_file, tensors, code, named):
    scene = make_scene()

    answer = scene.send_update(scene.participants[0], file=tensors_file(**tensors))

    assert answer.status_code == 400
    assert answer.json()["code"] == code or not tensors
    assert named in answer.json()["detail"]
    assert scene.shown["local_models_arrived"] == 0


def test_after_a_refusal_one_may_send_a_better_update(make_scene):
    scene = make_scene()
    scene.send_update(scene.participants[0], w=[np.nan, 1])

    assert scene.send_update(scene.participants[0]).status_code == 201


def test_the_largest_numbers_of_the_models_type_have_a_mean(make_scene, work):
    scene = make_scene(options={"tests": "never"})
    largest = float(np.finfo("f4").max)
    for participant in scene.participants:
        scene.send_update(participant, w=[largest, -largest], sample_size=10**9)
    work()

    assert (scene.state, scene.weights()) == ("C", [largest, -largest])


def test_an_aggregate_that_is_not_finite_ends_the_training_with_a_reason(make_scene, make_model, make_user, work):
    actor = make_user()
    model = make_model(actor, w=np.zeros(2))
    scene = make_scene(actor=actor, model=model, options={"tests": "never"})
    for participant in scene.participants:
        # Finite, but the sum of two exceeds float64.
        assert scene.send_update(participant, w=np.full(2, np.finfo("f8").max)).status_code == 201
    work()

    assert scene.state == "E"
    assert scene.shown["reason"].startswith("Round 1 could not be aggregated: ")
    assert "w" in scene.shown["reason"]
    assert scene.weights() == [0, 0]


# Test rounds


@pytest.fixture
def testing(make_scene, work):
    """A scene whose first round of two is being tested."""
    scene = make_scene(target_num_updates=2)
    for participant in scene.participants:
        scene.send_update(participant)
    work()
    assert scene.round_states == ["TESTING"]
    return scene


def test_a_test_ends_with_the_last_metrics(testing, work):
    one, other = testing.participants

    testing.report(one, loss=1)
    assert testing.round_states == ["TESTING"]
    testing.report(other, loss=2)
    work()

    assert testing.round_states == ["CLOSED", "OPEN"]


def test_metrics_sent_again_take_the_place_of_the_first(testing, as_):
    one, _ = testing.participants
    testing.report(one, loss=1, accuracy=0.5)

    testing.report(one, loss=3)

    assert testing.shown["rounds"][0]["metrics"]["test"] == {str(one.pk): {"loss": 3.0}}
    listed = as_(testing.actor).get(f"/api/models/{testing.model_id}/metrics/").json()
    assert [(each["key"], each["value_float"]) for each in listed] == [("loss", 3.0)]
    assert testing.round_states == ["TESTING"]


def test_of_a_metric_that_one_answer_has_twice_the_last_counts_and_both_are_kept(testing, as_):
    participant = testing.participants[0]
    body = {"metric_names": ["loss", "loss"], "metric_values": [3, 1]}
    as_(participant).send("POST", f"/api/models/{testing.model_id}/metrics/", body)

    (tested,) = [each["metrics"]["test"] for each in testing.shown["rounds"]]
    listed = as_(participant).get(f"/api/models/{testing.model_id}/metrics/?phase=test").json()
    assert tested == {str(participant.pk): {"loss": 1}}
    assert [each["value_float"] for each in listed] == [3, 1]


def test_the_actors_metrics_do_not_end_a_test(testing):
    testing.report(testing.participants[0], loss=1)

    testing.report(testing.actor, loss=1)

    assert testing.round_states == ["TESTING"]


def test_who_has_reported_is_not_asked_again(testing):
    one, other = testing.participants

    testing.report(one, loss=1)

    assert testing.asked_of(one) == []
    assert testing.asked_of(other) == ["MODEL_TEST_ROUND"]


def test_no_update_is_taken_during_a_test(testing):
    answer = testing.send_update(testing.participants[0], round=1)

    assert answer.status_code == 400
    assert answer.json()["code"] == "round_not_open"


def test_metrics_after_the_training_are_kept(make_scene, work, as_):
    scene = make_scene(participants=1, options={"tests": "never"})
    scene.send_update(scene.participants[0])
    work()

    assert scene.report(scene.participants[0], loss=1).status_code == 201
    shown = as_(scene.actor).get(f"/api/models/{scene.model_id}/metrics/").json()
    assert [(each["key"], each["step"]) for each in shown] == [("loss", 1)]


# People come and go


def test_who_joins_during_a_round_is_asked_from_the_next_one(make_scene, make_user, work):
    scene = make_scene(participants=1, target_num_updates=2, options={"tests": "never"})
    late = make_user()
    scene.add(late)
    work()

    refused = scene.send_update(late)
    assert (refused.status_code, refused.json()["code"]) == (400, "round_not_open")
    assert scene.types_told(late) == []
    scene.send_update(scene.participants[0])
    work()

    assert scene.types_told(late) == ["TRAINING_START", "UPDATE_ROUND_START"]
    assert scene.shown["local_models_expected"] == 2


def test_nobody_joins_what_is_over(make_scene, make_user, work):
    scene = make_scene(participants=1, options={"tests": "never"})
    scene.send_update(scene.participants[0])
    work()

    answer = scene.add(make_user())

    assert answer.status_code == 400
    assert answer.json()["code"] == "wrong_state"


def test_an_open_round_closes_when_the_last_awaited_one_is_removed(make_scene, work):
    scene = make_scene(options={"tests": "never"})
    one, other = scene.participants
    scene.send_update(one, w=[5, 5])

    scene.remove(other)
    work()

    assert scene.state == "C"
    assert scene.weights() == [5, 5]


def test_an_open_round_still_waits_for_the_others_when_one_is_removed(make_scene, work):
    scene = make_scene(participants=3)
    scene.send_update(scene.participants[0])

    scene.remove(scene.participants[1])
    work()

    assert scene.round_states == ["OPEN"]
    assert scene.shown["local_models_expected"] == 2


def test_who_is_removed_hears_of_it_and_is_asked_for_nothing_more(make_scene, work):
    scene = make_scene()
    gone = scene.participants[1]

    scene.remove(gone)
    work()

    assert scene.told(gone)[-1] == ("CLIENT_REMOVED", {"global_model_uuid": str(scene.model_id)})
    assert scene.asked_of(gone) == []
    assert scene.send_update(gone).status_code == 403


def test_the_update_of_who_was_removed_still_counts(make_scene, work):
    scene = make_scene(options={"tests": "never"})
    one, other = scene.participants
    scene.send_update(one, w=[0, 0])
    scene.remove(one)

    scene.send_update(other, w=[4, 4])
    work()

    assert scene.weights() == [2, 2]


def test_a_removal_during_the_aggregation_keeps_the_update_and_skips_the_test(make_scene, work):
    scene = make_scene(target_num_updates=2)
    one, other = scene.participants
    scene.send_update(one, w=[0, 0])
    scene.send_update(other, w=[4, 4])

    assert scene.round_states == ["AGGREGATING"]
    scene.remove(one)
    work()

    assert scene.weights() == [2, 2]
    assert "MODEL_TEST_ROUND" not in scene.types_told(one)
    scene.report(other, loss=1)
    work()
    assert scene.round_states == ["CLOSED", "OPEN"]


def test_a_test_ends_when_the_last_awaited_one_is_removed(testing, work):
    one, other = testing.participants
    testing.report(one, loss=1)

    testing.remove(other)
    work()

    assert testing.round_states == ["CLOSED", "OPEN"]


def test_a_training_that_everybody_leaves_in_an_open_round_ends_with_its_reason(make_scene, work):
    scene = make_scene()

    scene.remove(*scene.participants)
    work()

    assert (scene.state, scene.shown["reason"]) == ("E", "No participants are left for round 1.")
    assert scene.round_states == ["FAILED"]


@pytest.mark.parametrize("when", ["aggregating", "testing"])
def test_a_training_that_everybody_leaves_later_keeps_the_model_made_so_far(make_scene, work, when):
    scene = make_scene(target_num_updates=2)
    for participant in scene.participants:
        scene.send_update(participant, w=[1, 2])
    if when == "testing":
        work()

    scene.remove(*scene.participants)
    work()

    assert (scene.state, scene.shown["reason"]) == ("E", "No participants are left for round 2.")
    assert scene.weights() == [1, 2]


def test_a_training_whose_target_is_reached_completes_although_everybody_left(make_scene, work):
    scene = make_scene(target_num_updates=1)
    for participant in scene.participants:
        scene.send_update(participant)

    scene.remove(*scene.participants)
    work()

    assert scene.state == "C"


def test_who_comes_back_is_asked_from_the_next_round(make_scene, work):
    scene = make_scene(target_num_updates=2, options={"tests": "never"})
    one, other = scene.participants
    scene.remove(other)
    scene.add(other)
    work()
    assert scene.asked_of(other) == []

    scene.send_update(one)
    work()

    assert scene.asked_of(other) == ["UPDATE_ROUND_START"]


def test_a_removal_before_the_start_is_nothing_special(make_scene, work):
    scene = make_scene(started=False)

    assert scene.remove(*scene.participants).status_code == 200
    work()

    assert scene.state == "I"


# Deadlines


def test_at_the_deadline_those_who_are_missing_are_asked_again(make_scene):
    scene = make_scene(options={"round_retries": 1})
    one, other = scene.participants
    scene.send_update(one)

    scene.let_deadline_pass()

    (current,) = scene.shown["rounds"]
    assert (current["state"], current["attempt"], current["arrived"]) == ("OPEN", 2, [str(one.pk)])
    assert scene.types_told(one).count("UPDATE_ROUND_START") == 1
    assert scene.types_told(other) == ["TRAINING_START", "UPDATE_ROUND_START", "UPDATE_ROUND_START"]


def test_a_round_that_is_tried_again_keeps_its_updates(make_scene, work):
    scene = make_scene(options={"tests": "never"})
    one, other = scene.participants
    scene.send_update(one, w=[0, 0])
    scene.let_deadline_pass()

    scene.send_update(other, w=[2, 2])
    work()

    assert (scene.state, scene.weights()) == ("C", [1, 1])
    assert scene.asked_of(other) == []


def test_at_the_deadline_a_round_goes_on_with_enough_updates(make_scene):
    scene = make_scene(participants=3, options={"min_updates": 2, "tests": "never"})
    one, other, _ = scene.participants
    scene.send_update(one, w=[1, 1])
    scene.send_update(other, w=[3, 3])
    assert scene.state == "O"

    scene.let_deadline_pass()

    assert (scene.state, scene.weights()) == ("C", [2, 2])


def test_after_the_last_deadline_a_training_fails_and_names_who_is_missing(make_scene):
    scene = make_scene(participants=3, options={"round_retries": 1})
    _, *missing = scene.participants
    scene.send_update(scene.participants[0])

    scene.let_deadline_pass()
    scene.let_deadline_pass()

    names = ", ".join(sorted(user.username for user in missing))
    assert scene.state == "E"
    assert scene.shown["reason"] == f"Round 1 got 1 updates in time; missing: {names}."
    assert scene.round_states == ["FAILED"]
    assert scene.asked_of(missing[0]) == []


def test_a_test_ends_at_its_deadline(testing):
    testing.report(testing.participants[0], loss=1)

    testing.let_deadline_pass()

    assert testing.round_states == ["CLOSED", "OPEN"]
    assert testing.asked_of(testing.participants[1]) == ["UPDATE_ROUND_START"]


def test_nothing_happens_before_the_deadline(make_scene):
    from folkmoot.server.trainings import sweeps

    scene = make_scene()

    sweeps.close_overdue_rounds()

    assert scene.shown["rounds"][0]["attempt"] == 1


def test_the_sweep_finds_what_is_overdue(make_scene):
    from folkmoot.server.trainings import sweeps

    scene = make_scene()
    scene.training.rounds.update(closes_at=scene.training.created_at)

    sweeps.close_overdue_rounds()

    assert scene.shown["rounds"][0]["attempt"] == 2


def test_a_round_lasts_as_long_as_the_options_say(make_scene):
    scene = make_scene(options={"round_timeout": 90})

    (current,) = scene.training.rounds.all()

    assert 89 < (current.closes_at - current.opened_at).total_seconds() < 91


# A worker that does its work twice


def test_a_round_is_aggregated_once_however_often_it_is_asked_for(make_scene, work):
    scene = make_scene(target_num_updates=2, options={"tests": "never"})
    for participant in scene.participants:
        scene.send_update(participant)
    work()

    rounds.aggregate(scene.id, 0)

    assert Checkpoint.objects.filter(model=scene.model_id).count() == 2
    assert scene.round_states == ["CLOSED", "OPEN"]


def test_a_deleted_training_is_not_aggregated(make_scene, as_, work):
    scene = make_scene()
    for participant in scene.participants:
        scene.send_update(participant)

    as_(scene.actor).delete(f"/api/trainings/{scene.id}/")
    work()

    assert Checkpoint.objects.filter(model=scene.model_id).count() == 1
