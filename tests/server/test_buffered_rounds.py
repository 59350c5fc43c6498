"""Asynchronous training: a round ends when enough updates are in, and who is slower is not left behind."""

from __future__ import annotations

import math

import pytest

from folkmoot.protocol.states import UpdateStatus
from folkmoot.server.trainings import lifecycle

pytestmark = pytest.mark.django_db


@pytest.fixture
def make_buffered(make_scene):
    """Three participants, a new model after every two updates, of up to two rounds ago."""

    def make(*, participants=3, rounds=3, buffer_size=2, max_staleness=2, **options):
        aggregation = {"buffer_size": buffer_size, "max_staleness": max_staleness}
        return make_scene(
            participants=participants,
            target_num_updates=rounds,
            aggregation_method="FedBuff",
            options={"aggregation": aggregation, **options},
        )

    return make


@pytest.fixture
def scene(make_buffered):
    return make_buffered()


def sends(scene, user, round, w=(1.0, 2.0)):
    return scene.send_update(user, round=round, w=w)


def status_of(scene, user, round):
    return scene.training.rounds.get(number=round).updates.get(participant=user).status


def test_a_round_ends_after_so_many_updates_and_the_next_asks_everybody(scene, work):
    quick, other, slow = scene.participants
    assert sends(scene, quick, 0).status_code == 201
    work()
    assert scene.round_states == ["OPEN"]

    sends(scene, other, 0)
    work()

    assert scene.round_states == ["CLOSED", "OPEN"]
    assert [body["round"] for kind, body in scene.told(slow) if kind == "UPDATE_ROUND_START"] == [0, 1]


def test_a_late_update_counts_in_the_next_round_by_what_it_changed_of_its_own_model(scene, work):
    quick, other, slow = scene.participants
    begun_with = scene.weights()
    for user in (quick, other):
        sends(scene, user, 0, [value + 1 for value in begun_with])
    work()
    after_one = [value + 1 for value in begun_with]
    assert scene.weights() == after_one

    assert sends(scene, slow, 0, [value + 8 for value in begun_with]).status_code == 201
    sends(scene, quick, 1, [value + 2 for value in after_one])
    work()

    step = (8 / math.sqrt(2) + 2) / 2
    assert scene.weights() == pytest.approx([value + step for value in after_one])


def test_one_participant_may_have_two_updates_in_one_round_as_long_as_they_began_with_different_models(scene, work):
    quick, other, slow = scene.participants
    sends(scene, quick, 0)
    sends(scene, other, 0)
    work()

    sends(scene, slow, 0)
    sends(scene, slow, 1)
    work()

    assert scene.round_states == ["CLOSED", "CLOSED", "OPEN"]
    shown = scene.training.rounds.get(number=1).counted.order_by("round__number")
    assert [(each.round.number, each.staleness) for each in shown] == [(0, 1), (1, 0)]


def test_an_update_is_unique_for_its_participant_and_the_round_that_it_began_with(scene, work):
    quick, other, slow = scene.participants
    first = sends(scene, slow, 0, (3.0, 4.0))
    sends(scene, quick, 0)
    sends(scene, other, 0)
    work()

    again = sends(scene, slow, 0, (3.0, 4.0))

    assert (again.status_code, again.json()) == (200, first.json())
    assert sends(scene, slow, 0, (5.0, 6.0)).status_code == 409


def test_an_update_that_is_too_stale_is_refused(make_buffered, work):
    scene = make_buffered(max_staleness=1)
    quick, other, slow = scene.participants
    for round in (0, 1):
        sends(scene, quick, round)
        sends(scene, other, round)
        work()

    answer = sends(scene, slow, 0)

    assert (answer.status_code, answer.json()["code"]) == (400, "round_closed")
    assert answer.json()["detail"] == (
        f"Training with ID {scene.id} is not currently in round 0: "
        "an update of it would count 2 rounds late, and max_staleness is 1"
    )
    assert sends(scene, slow, 1).status_code == 201


@pytest.mark.parametrize(("buffer_size", "taken"), [(1, 2), (2, 4)])
def test_a_buffer_that_is_filled_several_times_over_takes_no_more_than_can_count_in_time(
    make_buffered, work, buffer_size, taken
):
    scene = make_buffered(participants=5, rounds=5, buffer_size=buffer_size, max_staleness=1)

    answers = [sends(scene, user, 0).status_code for user in scene.participants]
    work()

    assert answers == [201] * taken + [400] * (5 - taken)
    counted = [each.staleness for each in scene.training.rounds.get(number=0).updates.all()]
    assert sorted(counted) == [0] * buffer_size + [1] * buffer_size


def test_an_update_that_comes_while_a_round_is_aggregated_waits_for_the_next(scene, work):
    quick, other, slow = scene.participants
    sends(scene, quick, 0)
    sends(scene, other, 0)
    assert scene.round_states == ["AGGREGATING"]

    assert sends(scene, slow, 0).status_code == 201
    work()

    assert scene.training.rounds.get(number=0).counted.count() == 2
    assert status_of(scene, slow, 0) == UpdateStatus.WAITING
    assert scene.shown["local_models_arrived"] == 1
    assert scene.shown["local_models_expected"] == 2


def test_what_waits_in_a_full_buffer_makes_the_next_model_at_once(make_buffered, work):
    scene = make_buffered(participants=4)
    for user in scene.participants:
        sends(scene, user, 0)

    work()

    assert scene.round_states == ["CLOSED", "CLOSED", "OPEN"]


def test_what_nobody_needs_any_more_is_listed_as_late(make_buffered, work):
    scene = make_buffered(rounds=1, tests="never")
    quick, other, slow = scene.participants
    sends(scene, quick, 0)
    sends(scene, other, 0)
    sends(scene, slow, 0)

    work()

    assert scene.state == "C"
    assert status_of(scene, slow, 0) == UpdateStatus.LATE
    assert sends(scene, slow, 0, (7.0, 7.0)).status_code == 409


def test_with_fewer_participants_than_the_buffer_holds_a_round_ends_when_all_have_answered(make_buffered, work):
    scene = make_buffered(participants=2, buffer_size=5)

    for user in scene.participants:
        sends(scene, user, 0)
    work()

    assert scene.round_states == ["CLOSED", "OPEN"]


def test_at_the_deadline_fewer_suffice_where_the_options_say_so(make_buffered):
    scene = make_buffered(buffer_size=3, min_updates=1)
    sends(scene, scene.participants[0], 0)

    scene.let_deadline_pass()

    assert scene.round_states == ["CLOSED", "OPEN"]


def test_only_the_last_model_is_tested_unless_the_options_say_otherwise(make_buffered, work):
    scene = make_buffered(rounds=2)
    for round in (0, 1):
        for user in scene.participants[:2]:
            sends(scene, user, round)
        work()

    tested = [body["round"] for kind, body in scene.told(scene.participants[0]) if kind == "MODEL_TEST_ROUND"]

    assert tested == [2]


def test_who_has_left_sends_nothing_more_and_the_round_goes_on_without(scene, work):
    quick, other, slow = scene.participants
    sends(scene, quick, 0)
    scene.remove(slow)
    scene.remove(other)
    work()

    assert scene.round_states == ["CLOSED", "OPEN"]
    assert sends(scene, slow, 0).status_code == 403


def test_a_damaged_update_leaves_the_round_to_be_filled_again(make_buffered, work, storage):
    scene = make_buffered(buffer_size=3, min_updates=3)
    quick, other, slow = scene.participants
    sends(scene, quick, 0, (1.0, 1.0))
    sends(scene, other, 0, (2.0, 2.0))
    sends(scene, slow, 0, (3.0, 3.0))
    damaged = scene.training.rounds.get(number=0).updates.get(participant=slow)
    storage.path(damaged.sha256).unlink()

    work()

    assert scene.round_states == ["OPEN"]
    assert status_of(scene, quick, 0) == UpdateStatus.WAITING
    assert sends(scene, slow, 0, (3.0, 3.0)).status_code == 201
    work()
    assert scene.round_states == ["CLOSED", "OPEN"]


def test_the_list_of_updates_says_in_which_round_each_counted(scene, work, as_):
    quick, other, slow = scene.participants
    for user, round in ((quick, 0), (other, 0), (slow, 0), (quick, 1)):
        sends(scene, user, round)
        work()

    updates = as_(scene.actor).get(f"/api/trainings/{scene.id}/updates/").json()

    of_slow = next(each for each in updates if each["participant"] == str(slow.pk))
    assert (of_slow["round"], of_slow["counted_in"], of_slow["status"]) == (0, 1, "accepted")


def test_a_round_that_is_aggregated_twice_takes_the_same_updates(scene, work):
    quick, other, slow = scene.participants
    sends(scene, quick, 0)
    sends(scene, other, 0)
    taken = set(scene.training.rounds.get(number=0).counted.values_list("pk", flat=True))

    sends(scene, slow, 0)
    lifecycle.go_on_if_complete(scene.id, round=0)
    work()

    assert set(scene.training.rounds.get(number=0).counted.values_list("pk", flat=True)) == taken


def test_daisy_chaining_does_not_go_with_a_buffer(make_user, make_model, as_):
    actor = make_user()
    wanted = {
        "model_id": str(make_model(actor).pk),
        "target_num_updates": 1,
        "aggregation_method": "FedBuff",
        "options": {"daisy_chain_period": 2, "aggregation": {"buffer_size": 1}},
    }

    answer = as_(actor).send("POST", "/api/trainings/", wanted)

    assert answer.status_code == 400
    assert "daisy_chain_period does not go with FedBuff" in answer.json()["detail"]


def test_an_update_that_comes_while_moments_are_collected_waits_for_the_next_round(make_scene, work):
    scene = make_scene(
        participants=3,
        target_num_updates=2,
        aggregation_method="FedBuff",
        uncertainty_method="SWAG",
        options={"aggregation": {"buffer_size": 2}},
    )
    quick, other, slow = scene.participants
    sends(scene, quick, 0)
    sends(scene, other, 0)
    work()
    assert scene.state == "S"

    assert sends(scene, slow, 0).status_code == 201
    assert status_of(scene, slow, 0) == UpdateStatus.WAITING


def test_who_is_asked_is_told_which_checkpoint_the_round_begins_with(scene, make_scene, work):
    quick, other, slow = scene.participants
    sends(scene, quick, 0)
    sends(scene, other, 0)
    work()

    asked = [body for kind, body in scene.told(slow) if kind == "UPDATE_ROUND_START"]
    in_step = make_scene().told(make_scene().participants[0])

    assert [body["checkpoint"] for body in asked] == [0, 1]
    assert not [body for _, body in in_step if "checkpoint" in body]


def test_who_was_removed_sends_nothing_more_in_any_round_that_it_was_asked_in(scene, work):
    quick, other, slow = scene.participants
    sends(scene, quick, 0)
    sends(scene, other, 0)
    work()
    scene.remove(slow)

    assert sends(scene, slow, 0).status_code == 403


def test_a_round_that_is_tried_again_takes_what_waits_at_once(make_buffered, work, storage):
    scene = make_buffered(buffer_size=1, min_updates=1)
    quick, other = scene.participants[:2]
    sends(scene, quick, 0, (9.0, 9.0))
    sends(scene, other, 0)
    damaged = scene.training.rounds.get(number=0).updates.get(participant=quick)
    storage.path(damaged.sha256).unlink()

    work()

    assert scene.round_states == ["CLOSED", "OPEN"]
    assert status_of(scene, other, 0) == UpdateStatus.ACCEPTED
