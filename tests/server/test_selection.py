"""Who is asked in a round: a cohort drawn by a seed, sometimes larger than needed so that the slow hold nobody up."""

from __future__ import annotations

import hashlib
from uuid import UUID

import pytest

from folkmoot.server.trainings.cohorts import draw
from folkmoot.server.trainings.options import Options

TEN = [UUID(int=number) for number in range(10)]


def drawn(*, participants=TEN, round=0, at_least=1, **selection):
    return draw(participants, Options(selection={"seed": 7, **selection}), round=round, at_least=at_least)


# The draw


def test_the_same_seed_draws_the_same_cohorts_on_every_machine():
    def rank(user, round):
        return hashlib.sha256(f"7 {round} {user}".encode()).hexdigest()

    assert [drawn(count=3, round=number).members for number in range(3)] == [
        sorted(TEN, key=lambda user, number=number: rank(user, number))[:3] for number in range(3)
    ]
    # As this very list: another order of bytes, or form of the ids, would be another draw.
    assert [user.int for user in drawn(count=3).members] == [6, 5, 3]


def test_the_order_of_the_participants_is_no_matter():
    assert drawn(count=4, participants=TEN[::-1]) == drawn(count=4)


def test_another_seed_and_another_round_draw_others():
    assert drawn(count=3, round=1) != drawn(count=3)
    assert drawn(count=3, seed=8) != drawn(count=3)


def test_in_many_rounds_everybody_is_asked_about_equally_often():
    asked = [user for number in range(1000) for user in drawn(count=3, round=number).members]

    # 300 times each, with a standard deviation of 14.5.
    assert all(240 < asked.count(user) < 360 for user in TEN)


def test_who_leaves_or_joins_changes_the_cohort_by_one_at_most():
    before = drawn(count=4).members
    for gone in TEN:
        after = drawn(count=4, participants=[user for user in TEN if user != gone]).members
        assert len(set(after) - set(before)) == (1 if gone in before else 0)


@pytest.mark.parametrize(
    ("fraction", "participants", "asked"), [(0.1, 30, 3), (0.5, 3, 2), (0.01, 10, 1), (1, 10, 10), (0.7, 10, 7)]
)
def test_a_fraction_is_rounded_up(fraction, participants, asked):
    users = [UUID(int=number) for number in range(participants)]

    assert len(drawn(fraction=fraction, participants=users).members) == asked


def test_a_cohort_is_no_smaller_than_the_strategy_needs():
    assert len(drawn(fraction=0.1, at_least=5).members) == 5


def test_more_are_asked_than_end_the_round_if_extra_says_so():
    assert len(drawn(count=3, extra=2).members) == 5
    assert drawn(count=3, extra=2).goal == 3
    assert drawn(count=3).goal is None


def test_all_are_asked_where_more_are_wanted_than_there_are():
    cohort = drawn(count=20, extra=5)

    assert sorted(cohort.members) == TEN
    assert cohort.goal is None


# In a training

pytestmark = pytest.mark.django_db


def asked_in(scene, number):
    shown = scene.shown["rounds"][number]["cohort"]
    return [user for user in scene.participants if str(user.pk) in shown]


def test_each_round_asks_its_cohort_and_nobody_else(make_scene, work):
    options = {"tests": "never", "selection": {"count": 1, "seed": 5}}
    scene = make_scene(participants=3, target_num_updates=4, options=options)
    for number in range(4):
        (asked,) = asked_in(scene, number)
        others = [user for user in scene.participants if user != asked]
        assert scene.asked_of(asked) == ["UPDATE_ROUND_START"]
        assert [scene.asked_of(user) for user in others] == [[], []]
        answer = scene.send_update(others[0], round=number)
        assert answer.json()["code"] == "round_not_open"
        assert scene.send_update(asked, round=number).status_code == 201
        work()

    assert scene.state == "C"


def test_a_test_asks_those_who_were_asked_for_updates(make_scene, work):
    scene = make_scene(participants=3, options={"selection": {"count": 1, "seed": 5}})
    (asked,) = asked_in(scene, 0)

    scene.send_update(asked)
    work()
    assert {user: scene.asked_of(user) for user in scene.participants} == {
        user: ["MODEL_TEST_ROUND"] if user == asked else [] for user in scene.participants
    }

    scene.report(asked, loss=1)
    assert scene.state == "C"


def test_a_round_ends_once_enough_of_those_asked_have_answered(make_scene, work):
    options = {"tests": "never", "selection": {"count": 2, "extra": 1, "seed": 5}}
    scene = make_scene(participants=4, target_num_updates=2, options=options)
    quick, quicker, slow = asked_in(scene, 0)
    shown = scene.shown
    assert (shown["local_models_expected"], shown["rounds"][0]["goal"]) == (2, 2)

    scene.send_update(quick, w=[0, 2])
    scene.send_update(quicker, w=[2, 4])
    work()
    answer = scene.send_update(slow, w=[100, 100])

    assert answer.json()["code"] == "round_closed"
    assert scene.weights() == [1, 3]
    assert scene.round_states == ["CLOSED", "OPEN"]
    assert slow in scene.training.participants.all()


def test_a_test_too_ends_once_enough_have_answered(make_scene, work):
    scene = make_scene(participants=3, options={"selection": {"count": 2, "extra": 1, "seed": 5}})
    quick, quicker, slow = asked_in(scene, 0)
    for user in (quick, quicker):
        scene.send_update(user)
    work()

    scene.report(slow, loss=1)
    assert scene.round_states == ["TESTING"]
    scene.report(quick, loss=1)

    assert scene.state == "C"


def test_a_round_that_is_tried_again_keeps_its_cohort(make_scene):
    scene = make_scene(participants=5, options={"selection": {"fraction": 0.4}})
    before = asked_in(scene, 0)

    scene.let_deadline_pass()

    assert scene.shown["rounds"][0]["attempt"] == 2
    assert asked_in(scene, 0) == before


def test_a_seed_that_nobody_gave_is_drawn_and_shown(make_scene):
    one, other = make_scene(options={"selection": {"count": 1}}), make_scene(options={"selection": {"count": 1}})

    seeds = [scene.shown["options"]["selection"]["seed"] for scene in (one, other)]
    assert seeds[0] != seeds[1]
    assert one.shown["options"]["selection"]["count"] == 1


def test_daisy_chaining_hands_models_on_to_the_next_cohort(make_scene, work):
    options = {"tests": "never", "daisy_chain_period": 2, "selection": {"count": 2, "seed": 5}}
    scene = make_scene(participants=4, aggregation_method="FedDC", options=options)
    for user in asked_in(scene, 0):
        scene.send_update(user, round=0)
    work()

    own = {str(update.pk) for update in scene.training.rounds.get(number=0).updates.all()}
    asked = [dict(scene.told(user)[1:])["UPDATE_ROUND_START"] for user in asked_in(scene, 1)]
    assert {body["global_model_uuid"] for body in asked} == own


# What is refused


@pytest.mark.parametrize(
    "selection",
    [
        {},
        {"count": 2, "fraction": 0.5},
        {"count": 0},
        {"fraction": 0},
        {"fraction": 1.01},
        {"fraction": "nan"},
        {"count": 2, "extra": -1},
        {"count": 2, "seed": -1},
        {"count": 2, "seed": 2**53},
        {"count": 2, "sed": 1},
        2,
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(make_user, make_model, as_, selection):
    answer = create(as_, make_user, make_model, options={"selection": selection})

    assert answer.status_code == 400
    assert "selection" in answer.json()["options"]


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (
            {"aggregation_method": "Krum", "options": {"aggregation": {"num_byzantine": 1}, "selection": {"count": 4}}},
            "options.selection.count is 4, and Krum needs at least 5",
        ),
        (
            {"options": {"selection": {"count": 4}, "min_updates": 5}},
            "options.min_updates is 5, and options.selection.count only 4",
        ),
        (
            {
                "aggregation_method": "FedBuff",
                "options": {"aggregation": {"buffer_size": 2}, "selection": {"count": 4}},
            },
            "options.selection does not go with FedBuff: a round takes the first updates that come",
        ),
    ],
)
def test_a_cohort_that_could_never_do_is_refused(make_user, make_model, as_, plan, sentence):
    answer = create(as_, make_user, make_model, **plan)

    assert answer.status_code == 400
    assert answer.json()["detail"] == sentence


def create(as_, make_user, make_model, **plan):
    actor = make_user()
    body = {"model_id": str(make_model(actor).pk), "target_num_updates": 1, "aggregation_method": "FedAvg", **plan}
    return as_(actor).send("POST", "/api/trainings/", body)
