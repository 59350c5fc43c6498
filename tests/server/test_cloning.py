"""Going on from an earlier round: a new training that does what the old one would have done from there."""

from __future__ import annotations

import sys

import pytest
from django.db import connection

from folkmoot.server.registry.models import Checkpoint
from folkmoot.server.trainings.models import Training

pytestmark = pytest.mark.django_db


def play(scene, work, *, rounds):
    for number in rounds:
        for weight, participant in enumerate(scene.participants, start=1):
            assert scene.send_update(participant, round=number, w=(weight, 4.0 * number + weight)).status_code == 201
        work()


@pytest.fixture
def finished(make_scene, work):
    """Three rounds of FedAdam, whose momentum makes each depend on those before."""
    scene = make_scene(aggregation_method="FedAdam", target_num_updates=3, options={"tests": "never"})
    play(scene, work, rounds=range(3))
    assert scene.state == "C"
    return scene


@pytest.fixture
def clone(as_, scene_of):
    def ask(scene, by=None, **body):
        answer = as_(by or scene.actor).send("POST", f"/api/trainings/{scene.id}/clone/", body)
        assert answer.status_code == 201, answer.content
        return scene_of(Training.objects.get(pk=answer.json()["training_id"]))

    return ask


def made(scene):
    found = Checkpoint.objects.filter(model=scene.model_id)
    return {each.round: (each.sha256, each.state_sha256) for each in found}


def test_a_clone_goes_on_exactly_as_the_training_did(finished, clone, work):
    again = clone(finished, round=1)
    assert (again.state, again.shown["target_num_updates"]) == ("I", 2)

    again.command("start")
    work()
    play(again, work, rounds=(1, 2))

    assert again.state == "C"
    before = made(finished)
    assert made(again) == {round: before[round] for round in (1, 2, 3)}


def test_what_is_not_said_is_as_it_was(finished, clone, as_):
    again = clone(finished, round=2)

    kept = ("options", "aggregation_method", "uncertainty_method", "metric_names", "participants", "actor")
    assert {name: again.shown[name] for name in kept} == {name: finished.shown[name] for name in kept}
    lineage = as_(again.actor).get(f"/api/models/{again.model_id}/lineage/").json()
    assert (lineage["ancestors"][0]["id"], lineage["ancestors"][0]["at_round"]) == (str(finished.model_id), 2)


def test_what_is_said_is_otherwise(finished, clone, make_user, as_):
    new = make_user()
    options = {"tests": "final", "round_timeout": 60}

    again = clone(finished, name="again", target_num_updates=7, options=options, clients=[str(new.pk)])

    shown = again.shown
    assert (shown["target_num_updates"], shown["options"], shown["participants"]) == (7, options, [str(new.pk)])
    model = as_(again.actor).get(f"/api/models/{again.model_id}/metadata/").json()
    assert (model["name"], model["round"]) == ("again", 3)


@pytest.mark.parametrize("is_participant", [True, False])
def test_who_may_see_a_training_clones_it_for_itself_though_it_may_not_steer(
    make_scene, make_user, clone, as_, is_participant
):
    scene = make_scene(options={"participants_may_steer": False})
    somebody = scene.participants[0] if is_participant else make_user(is_staff=True)
    assert as_(somebody).post(f"/api/trainings/{scene.id}/pause/").status_code == 403

    again = clone(scene, by=somebody, round=0)

    assert again.shown["actor"] == str(somebody.pk)
    assert again.command("start").status_code == 202


def test_a_round_of_a_clone_goes_by_one_number_in_all_sentences(finished, clone, as_, work):
    again = clone(finished, round=1, options={"tests": "never", "round_retries": 0})
    again.command("start")
    work()
    explained = as_(again.actor).get(f"/api/trainings/{again.id}/explain/").json()
    again.let_deadline_pass()

    assert explained["sentence"].startswith("Round 2 of 3: waiting for 2 of 2 updates, ")
    assert (explained["round"], explained["rounds"]) == (2, 3)
    assert again.shown["rounds"][0]["number"] == 1
    assert again.shown["reason"].startswith("Round 2 got 0 updates in time")
    told = [each["sentence"] for each in as_(again.actor).get(f"/api/trainings/{again.id}/events/").json()]
    assert "Round 2 asks for updates." in told
    last = as_(finished.actor).get(f"/api/trainings/{finished.id}/events/").json()[-1]["sentence"]
    assert last == f"Cloned by {finished.actor.username} from checkpoint 1, into training {again.id}."


@pytest.fixture
def reading(storage):
    """A list: whether a transaction was open, at each time that a file of the storage is opened."""
    seen, root = [], str(storage.root)

    def listen(event, arguments):
        if seen is not None and event == "open" and str(arguments[0]).startswith(root):
            seen.append(connection.in_atomic_block)

    sys.addaudithook(listen)
    yield seen
    seen = None


@pytest.mark.django_db(transaction=True)
def test_no_file_is_read_while_others_wait_for_the_database(finished, clone, reading, as_, make_model):
    new = make_model(finished.actor)
    reading.clear()
    clone(finished, round=1)
    of_clone = len(reading)
    plan = {"model_id": str(new.pk), "target_num_updates": 1, "aggregation_method": "FedAvg"}
    assert as_(finished.actor).send("POST", "/api/trainings/", plan).status_code == 201

    assert 0 < of_clone < len(reading)
    assert not any(reading)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"round": 7}, "has no checkpoint 7; the latest is 3"),
        ({}, "had no rounds left after 3; say how many"),
        ({"round": 1, "clients": ["nobody"]}, "Not all provided users were found!"),
        ({"round": 1, "options": {"aggregation": {"rules": {"w": "keep"}}}}, "what FedAdam kept does not go with"),
    ],
)
def test_what_cannot_be_is_said(finished, as_, body, words):
    answer = as_(finished.actor).send("POST", f"/api/trainings/{finished.id}/clone/", body)

    assert answer.status_code == 400
    assert words in answer.json()["detail"]
    assert Training.objects.count() == 1


@pytest.mark.parametrize("body", [{"round": -1}, {"options": {"tests": "often"}}, {"name": "a\nb"}, {"colour": "red"}])
def test_what_is_malformed_is_named(finished, as_, body):
    answer = as_(finished.actor).send("POST", f"/api/trainings/{finished.id}/clone/", body)

    assert answer.status_code == 400
    assert list(answer.json()) == list(body)
