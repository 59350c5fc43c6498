"""The list of a training's updates: what has become of each, and what was measured of it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from folkmoot.protocol.states import UpdateStatus
from folkmoot.server.trainings.models import Update

pytestmark = pytest.mark.django_db

DISTANT = 1e300


@pytest.fixture
def listed(as_):
    """A function: a training's updates as somebody sees them."""

    def get(scene, user=None, **query):
        answer = as_(user or scene.actor).get(f"/api/trainings/{scene.id}/updates/", query)
        assert answer.status_code == 200, answer.content
        return answer.json()

    return get


@pytest.fixture
def aggregated(make_scene, work):
    """A function: a training whose participants have sent these values of `w`, one each."""

    def run(*values, aggregation_method="FedAvg", **aggregation):
        options = {"tests": "never", "aggregation": aggregation}
        scene = make_scene(participants=len(values), aggregation_method=aggregation_method, options=options)
        for participant, w in zip(scene.participants, values, strict=True):
            answer = scene.send_update(participant, w=w)
            assert answer.status_code == 201, answer.content
        work()
        return scene

    return run


def by_participant(scene, rows):
    found = {row["participant"]: row for row in rows}
    return [found[str(participant.pk)] for participant in scene.participants if str(participant.pk) in found]


def test_an_update_waits_without_scores_until_its_round_is_aggregated(make_scene, listed):
    scene = make_scene()
    (one, _) = scene.participants
    update_id = scene.send_update(one, sample_size=7).json()["update_id"]

    (row,) = listed(scene)

    facts = {"id": update_id, "round": 0, "participant": str(one.pk), "sample_size": 7, "format": "safetensors"}
    assert row.items() >= facts.items()
    assert row["received_bytes"] == row["num_bytes"] > 0
    assert (row["status"], row["reason"]) == ("waiting", "")
    assert set(row["scores"].values()) == {None}


def test_an_aggregated_update_has_its_norm_its_direction_and_its_share(aggregated, listed):
    scene = aggregated([3, 4], [0, 10])

    one, other = by_participant(scene, listed(scene))

    assert (one["status"], other["status"]) == ("accepted", "accepted")
    assert one["scores"]["norm"] == 5
    assert other["scores"]["norm"] == 10
    assert one["scores"]["relative_norm"] == pytest.approx(5 / 7.5)
    # To the mean of both, (1.5, 7).
    assert one["scores"]["cosine"] == pytest.approx((3 * 1.5 + 4 * 7) / (5 * math.hypot(1.5, 7)))
    assert one["scores"]["weight"] == 0.5


def test_scores_can_be_left_out(aggregated, listed):
    scene = aggregated([3, 4], [0, 10], scores=False)

    assert [row["scores"]["norm"] for row in listed(scene)] == [None, None]
    assert [row["status"] for row in listed(scene)] == ["accepted", "accepted"]


@pytest.mark.parametrize(("action", "status"), [("reject", "rejected"), ("quarantine", "quarantined")])
def test_what_lies_outside_the_bound_is_left_out_and_the_reason_is_told(aggregated, listed, action, status):
    scene = aggregated([0, 1], [1, 0], [30, 40], screen={"score": "norm", "bound": 2, "action": action})

    rows = by_participant(scene, listed(scene))

    assert [row["status"] for row in rows] == ["accepted", "accepted", status]
    assert rows[2]["reason"] == "its norm 50 is above 2"
    assert rows[2]["scores"]["norm"] == 50
    assert rows[2]["scores"]["weight"] is None
    assert scene.state == "C"
    assert scene.weights() == [0.5, 0.5]


def test_what_was_left_out_is_not_among_what_made_the_checkpoint(aggregated, as_):
    scene = aggregated([0, 1], [30, 40], screen={"score": "norm", "bound": 2})

    made = as_(scene.actor).get(f"/api/models/{scene.model_id}/checkpoints/").json()[1]["aggregation"]

    assert made["num_updates"] == 1
    assert [each["participant"] for each in made["updates"]] == [str(scene.participants[0].pk)]
    assert scene.shown["rounds"][0]["arrived"] == [str(each.pk) for each in sorted_by_id(scene.participants)]


def test_what_the_strategy_did_not_choose_is_not_in_the_aggregate(aggregated, listed, as_):
    scene = aggregated([0, 1], [0, 1.5], [30, 40], aggregation_method="Krum", num_byzantine=0)

    rows = by_participant(scene, listed(scene))
    made = as_(scene.actor).get(f"/api/models/{scene.model_id}/checkpoints/").json()[1]["aggregation"]

    (chosen,) = [row for row in rows if row["status"] == "accepted"]
    assert {(row["status"], row["reason"]) for row in rows if row is not chosen} == {
        ("not_chosen", "the strategy chose others")
    }
    assert made["num_updates"] == 1
    assert [each["participant"] for each in made["updates"]] == [chosen["participant"]]
    assert len(listed(scene, status="not_chosen")) == 2


def sorted_by_id(users):
    return sorted(users, key=lambda user: user.pk)


def test_bytes_that_were_left_out_get_their_first_answer_when_they_come_again(aggregated):
    scene = aggregated([0, 1], [30, 40], screen={"score": "norm", "bound": 2})
    update = Update.objects.rejected().get()

    again = scene.send_update(update.participant, w=[30, 40])

    assert (again.status_code, again.json()["update_id"]) == (200, str(update.pk))


def test_numbers_that_do_not_exist_are_null(make_scene, work, tensors_file, make_model, make_user, listed):
    actor = make_user()
    model = make_model(actor, w=np.zeros(2))
    scene = make_scene(actor=actor, model=model, options={"tests": "never"})
    for participant, w in zip(scene.participants, ([0.0, 0.0], [DISTANT, DISTANT]), strict=True):
        assert scene.send_update(participant, file=tensors_file(w=np.array(w))).status_code == 201
    work()

    rows = by_participant(scene, json.loads(json.dumps(listed(scene), allow_nan=False)))

    assert rows[0]["scores"]["cosine"] is None
    assert rows[1]["scores"]["norm"] is None


def test_a_strategy_that_weighs_no_update_by_itself_gives_no_shares(aggregated, listed):
    scene = aggregated([0, 1], [2, 3], [4, 5], aggregation_method="Median")

    assert scene.weights() == [2, 3]
    assert [row["scores"]["weight"] for row in listed(scene)] == [None] * 3


def test_a_participant_sees_its_own_updates_alone(aggregated, listed, make_user):
    scene = aggregated([0, 1], [2, 3])
    one = scene.participants[0]

    assert [row["participant"] for row in listed(scene, one)] == [str(one.pk)]
    assert len(listed(scene, make_user(is_staff=True))) == 2


def test_an_actor_that_takes_part_sees_all(make_scene, make_user, listed):
    actor, other = make_user(), make_user()
    scene = make_scene(actor=actor, participants=[actor, other])
    for participant in (actor, other):
        scene.send_update(participant)

    assert len(listed(scene, actor)) == 2


def test_updates_are_filtered_ordered_and_paged(make_scene, work, listed, as_):
    scene = make_scene(target_num_updates=2, options={"tests": "never"})
    one, other = scene.participants
    for number in range(2):
        scene.send_update(one, round=number, w=[number, 1])
        scene.send_update(other, round=number, w=[number, 9])
        work()

    assert [row["round"] for row in listed(scene)] == [0, 0, 1, 1]
    assert [row["round"] for row in listed(scene, round=1)] == [1, 1]
    assert {row["participant"] for row in listed(scene, participant=str(one.pk))} == {str(one.pk)}
    assert listed(scene, status="rejected") == []
    norms = [row["scores"]["norm"] for row in listed(scene, ordering="-norm", limit=2)]
    assert norms == sorted(norms, reverse=True)
    refused = as_(scene.actor).get(f"/api/trainings/{scene.id}/updates/?status=lost")
    assert refused.status_code == 400


def test_the_training_says_where_its_updates_are(make_scene):
    scene = make_scene()

    assert scene.shown["links"]["updates"].endswith(f"/api/trainings/{scene.id}/updates/")


def test_the_list_costs_the_same_few_queries_however_long_it_is(
    aggregated, listed, django_assert_max_num_queries, as_, make_user
):
    scene = aggregated(*([number, 1] for number in range(12)))
    as_(scene.actor)

    with django_assert_max_num_queries(6):
        assert len(listed(scene)) == 12


def test_models_that_wander_on_are_passed_on(make_scene, work, listed):
    scene = make_scene(options={"daisy_chain_period": 2, "tests": "never"})
    for participant in scene.participants:
        assert scene.send_update(participant).status_code == 201
    work()

    assert {row["status"] for row in listed(scene)} == {UpdateStatus.PASSED_ON}
