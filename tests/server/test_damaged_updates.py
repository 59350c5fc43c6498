"""Updates whose stored bytes are no longer what came in: the round goes on without them, or asks for them again."""

from __future__ import annotations

import pytest

from folkmoot.server.outbox.models import Event
from folkmoot.server.trainings.models import Update
from folkmoot.tensors.tensor_file import TensorFile

pytestmark = pytest.mark.django_db


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def flip_a_value(path):
    flip(path, TensorFile.open(path).data_offset)


def flip_the_header(path):
    flip(path, 9)


def cut(path):
    path.write_bytes(path.read_bytes()[:-4])


def delete(path):
    path.unlink()


ANY_DAMAGE = pytest.mark.parametrize("damage", [flip_a_value, flip_the_header, cut, delete])


@pytest.fixture
def full_round(make_scene, storage):
    """A function: a training whose participants have all sent an update, the first of which is damaged then."""

    def make(damage, participants=3, **options):
        scene = make_scene(participants=participants, target_num_updates=2, options={"tests": "never"} | options)
        for number, participant in enumerate(scene.participants):
            assert scene.send_update(participant, w=[number, 10]).status_code == 201
        damage(storage.path(update_of(scene, 0).sha256))
        return scene

    return make


def update_of(scene, place):
    return Update.objects.get(participant=scene.participants[place])


def told_last(scene, user):
    _kind, body = scene.told(user)[-1]
    return body


@ANY_DAMAGE
def test_the_round_goes_on_with_the_others(full_round, work, damage):
    scene = full_round(damage)

    work()

    assert scene.round_states == ["CLOSED", "OPEN"]
    assert scene.weights(1) == [1.5, 10]


@ANY_DAMAGE
def test_the_update_is_rejected_and_the_reason_is_told(full_round, work, as_, damage):
    scene = full_round(damage)
    work()

    one = scene.participants[0]
    (row,) = as_(one).get(f"/api/trainings/{scene.id}/updates/").json()
    assert row["status"] == "rejected"
    assert row["reason"].startswith(f"update {one.pk} is damaged: ")
    noted = Event.objects.get(kind="update_rejected").payload
    assert noted == {"round": 0, "participant": str(one.pk), "reason": row["reason"]}
    assert {update_of(scene, place).status for place in (1, 2)} == {"accepted"}


@pytest.mark.parametrize("retries", [0, 2])
def test_nobody_is_awaited_in_place_of_who_has_left(full_round, work, retries):
    scene = full_round(flip_a_value, participants=2, min_updates=2, round_retries=retries)
    scene.remove(scene.participants[0])

    work()

    assert scene.round_states == ["CLOSED", "OPEN"]
    assert scene.weights(1) == [1, 10]


def test_several_damaged_updates_are_all_left_out(full_round, storage, work):
    scene = full_round(flip_a_value)
    flip_a_value(storage.path(update_of(scene, 1).sha256))

    work()

    assert scene.weights(1) == [2, 10]


def test_with_too_few_left_those_are_asked_again_whose_update_was_rejected(full_round, work):
    scene = full_round(flip_a_value, min_updates=3)
    one, *others = scene.participants

    work()

    assert scene.round_states == ["OPEN"]
    assert (scene.shown["local_models_arrived"], scene.shown["local_models_expected"]) == (2, 3)
    assert scene.asked_of(one) == ["UPDATE_ROUND_START"]
    body = told_last(scene, one)
    assert (body["round"], body["attempt"]) == (0, 2)
    assert body["rejected"].startswith(f"update {one.pk} is damaged: ")
    for other in others:
        assert scene.asked_of(other) == []
        assert "rejected" not in told_last(scene, other)


@pytest.mark.parametrize("w", [[0, 10], [6, 10]], ids=["the same bytes", "other bytes"])
@ANY_DAMAGE
def test_another_takes_the_place_of_a_damaged_one(full_round, work, damage, w):
    scene = full_round(damage, min_updates=3)
    one = scene.participants[0]
    rejected = update_of(scene, 0).pk
    work()

    answer = scene.send_update(one, w=w)
    work()

    assert answer.status_code == 201
    assert answer.json()["update_id"] != str(rejected)
    assert scene.round_states == ["CLOSED", "OPEN"]
    assert scene.weights(1) == [(w[0] + 1 + 2) / 3, 10]
    statuses = Update.objects.filter(participant=one).order_by("received_at").values_list("status", flat=True)
    assert list(statuses) == ["rejected", "accepted"]
    assert scene.shown["rounds"][0]["arrived"].count(str(one.pk)) == 1


def test_a_second_one_with_other_bytes_is_refused_as_ever(full_round, work):
    scene = full_round(flip_a_value, min_updates=3)
    one = scene.participants[0]
    work()

    scene.send_update(one, w=[6, 10])
    answer = scene.send_update(one, w=[7, 10])

    assert (answer.status_code, answer.json()["code"]) == (409, "already_submitted")


def test_bytes_that_are_damaged_for_two_participants_are_damaged_for_both(make_scene, storage, work):
    scene = make_scene(participants=3, options={"tests": "never"})
    for participant, w in zip(scene.participants, ([1, 1], [1, 1], [5, 5]), strict=True):
        scene.send_update(participant, w=w)
    flip_a_value(storage.path(update_of(scene, 0).sha256))

    work()

    assert scene.weights() == [5, 5]
    assert [update_of(scene, place).status for place in range(3)] == ["rejected", "rejected", "accepted"]


def test_a_rejected_update_is_no_local_model(full_round, work, as_):
    scene = full_round(flip_a_value, min_updates=3)
    rejected = update_of(scene, 0).pk
    work()

    assert as_(scene.actor).get(f"/api/models/{rejected}/").status_code == 404
    assert len(as_(scene.actor).get(f"/api/trainings/{scene.id}/models/").json()) == 3


def test_a_round_that_was_tried_often_enough_ends_the_training(full_round, work):
    scene = full_round(delete, participants=1, round_retries=0)

    work()

    assert (scene.state, scene.round_states) == ("E", ["FAILED"])
    one = scene.participants[0]
    assert scene.shown["reason"] == f"Round 1 has 0 updates left: update {one.pk} is damaged: its file is gone."


def test_without_an_answer_the_deadline_decides(full_round, work):
    scene = full_round(delete, participants=2, min_updates=2, round_retries=1)
    work()

    scene.let_deadline_pass()

    assert scene.state == "E"
    reason = f"Round 1 got 1 updates in time; missing: {scene.participants[0].username}."
    assert scene.shown["reason"] == reason


def test_a_strategy_needs_its_number_of_whole_updates(make_scene, storage, work):
    options = {"tests": "never", "aggregation": {"num_byzantine": 0}}
    scene = make_scene(participants=3, aggregation_method="Krum", options=options)
    for number, participant in enumerate(scene.participants):
        scene.send_update(participant, w=[number + 5, 0])
    flip_a_value(storage.path(update_of(scene, 0).sha256))

    work()

    assert scene.round_states == ["OPEN"]
