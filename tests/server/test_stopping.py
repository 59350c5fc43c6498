"""A training that is stopped: now, or at the end of its round; the last checkpoint stands."""

from __future__ import annotations

import pytest

from folkmoot.server.registry.models import Checkpoint
from folkmoot.server.trainings import rounds

pytestmark = pytest.mark.django_db


def statuses(scene, as_):
    rows = as_(scene.actor).get(f"/api/trainings/{scene.id}/updates/").json()
    return [(row["status"], row["reason"]) for row in rows]


CUT_OFF = ("late", "the training was stopped")


def test_what_is_in_no_aggregate_is_listed_with_the_reason(make_scene, as_, work):
    scene = make_scene(target_num_updates=2, options={"tests": "never"})
    one, other = scene.participants
    for participant in (one, other):
        scene.send_update(participant, w=(3, 5))
    work()
    scene.send_update(one, round=1)

    answer = scene.command("stop")
    work()

    assert (answer.status_code, answer.json()) == (202, {"detail": "Training stopped!"})
    assert (scene.state, scene.round_states) == ("X", ["CLOSED", "FAILED"])
    assert (scene.shown["reason"], scene.shown["reason_code"]) == ("Stopped on request.", "stopped")
    assert scene.weights() == [3, 5]
    assert sorted(statuses(scene, as_)) == sorted([("accepted", ""), ("accepted", ""), CUT_OFF])
    assert scene.types_told(other)[-1] == scene.types_told(scene.actor)[-1] == "TRAINING_FINISHED"
    assert scene.asked_of(other) == []
    assert scene.send_update(other, round=1).json()["code"] == "wrong_state"


def test_an_aggregation_under_way_changes_nothing_any_more(make_scene, meanwhile, work, as_):
    scene = make_scene(aggregation_method="Interrupted", target_num_updates=2)
    for participant in scene.participants:
        scene.send_update(participant)
    meanwhile.append(lambda: scene.command("stop"))

    work()
    rounds.aggregate(scene.id, 0)

    assert (scene.state, scene.round_states) == ("X", ["FAILED"])
    assert Checkpoint.objects.filter(model=scene.model_id).count() == 1
    assert statuses(scene, as_) == [CUT_OFF, CUT_OFF]


def test_a_model_that_is_being_tested_stands(make_scene, work, as_):
    scene = make_scene(target_num_updates=2)
    for participant in scene.participants:
        scene.send_update(participant, w=(3, 5))
    work()
    assert scene.round_states == ["TESTING"]

    scene.command("stop")

    assert (scene.state, scene.round_states, scene.weights()) == ("X", ["CLOSED"], [3, 5])
    assert [status for status, _ in statuses(scene, as_)] == ["accepted", "accepted"]


def test_at_the_end_of_the_round_its_updates_still_count(make_scene, work):
    scene = make_scene(target_num_updates=3)
    one, other = scene.participants
    scene.send_update(one, w=(3, 5))

    answer = scene.command("stop", {"when": "end_of_round"})

    assert (answer.status_code, answer.json()) == (202, {"detail": "Training stops at the end of its round!"})
    assert (scene.state, scene.shown["stops_after_round"]) == ("O", True)
    again = scene.command("stop", {"when": "end_of_round"})
    assert (again.status_code, again.json()["code"]) == (400, "wrong_state")
    scene.send_update(other, w=(3, 5))
    work()
    for participant in scene.participants:
        scene.report(participant, loss=1)
    work()
    assert (scene.state, scene.round_states, scene.weights()) == ("X", ["CLOSED"], [3, 5])
    assert scene.shown["reason"] == "Stopped at the end of round 1."
    assert scene.types_told(one)[-1] == "TRAINING_FINISHED"


def test_who_cannot_wait_for_the_end_of_the_round_stops_now(make_scene):
    scene = make_scene()
    scene.command("stop", {"when": "end_of_round"})

    assert scene.command("stop", {"when": "now"}).status_code == 202
    assert scene.state == "X"


@pytest.mark.parametrize("before", [(), ("start",), ("start", "pause")])
@pytest.mark.parametrize("body", [None, {"when": "now"}])
def test_a_training_is_stopped_in_any_state_but_the_last(make_scene, before, body):
    scene = make_scene(started=False)
    for command in before:
        scene.command(command)

    assert scene.command("stop", body).status_code == 202
    assert scene.state == "X"
    again = scene.command("stop", body)
    assert (again.status_code, again.json()["detail"]) == (400, f"Training {scene.id} is over, in state X!")


@pytest.mark.parametrize(("body", "field"), [({"when": "later"}, "when"), ({"at": "now"}, "at")])
def test_what_is_not_understood_is_named(make_scene, body, field):
    answer = make_scene().command("stop", body)

    assert answer.status_code == 400
    assert field in answer.json()
