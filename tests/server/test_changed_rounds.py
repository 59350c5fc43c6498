"""What happens to a round's updates while it is aggregated: the model is of those that stand in it afterwards."""

from __future__ import annotations

import pytest

from folkmoot.server.trainings import lifecycle
from folkmoot.server.trainings.models import Update

pytestmark = pytest.mark.django_db


@pytest.fixture
def full_round(make_scene, meanwhile):
    """A function: a training whose first round has its three updates, and is not aggregated yet."""

    def make(**options):
        options = {"tests": "never"} | options
        scene = make_scene(participants=3, target_num_updates=2, aggregation_method="Interrupted", options=options)
        for participant, w in zip(scene.participants, ([0, 0], [1, 3], [2, 6]), strict=True):
            assert scene.send_update(participant, w=w).status_code == 201
        return scene

    return make


def reject_first(scene):
    lifecycle.reject_update(Update.objects.get(participant=scene.participants[0]), reason="found to be damaged")


def made_of(scene, as_):
    made = as_(scene.actor).get(f"/api/models/{scene.model_id}/checkpoints/").json()[1]["aggregation"]
    return {each["sha256"] for each in made["updates"]}


def accepted(scene):
    return set(Update.objects.in_aggregate().values_list("sha256", flat=True))


def test_an_update_that_is_rejected_meanwhile_is_not_in_the_model(meanwhile, full_round, work, as_):
    scene = full_round()
    meanwhile.append(lambda: reject_first(scene))

    work()

    assert scene.round_states == ["CLOSED", "OPEN"]
    assert scene.weights(1) == [1.5, 4.5]
    assert len(made_of(scene, as_)) == 2
    assert made_of(scene, as_) == accepted(scene)


def test_an_update_that_is_replaced_meanwhile_is_in_the_model_in_its_new_form(meanwhile, full_round, work, as_):
    scene = full_round(min_updates=3)

    def replace():
        reject_first(scene)
        assert scene.send_update(scene.participants[0], w=[6, 9]).status_code == 201

    meanwhile.append(replace)

    work()

    assert scene.round_states == ["CLOSED", "OPEN"]
    assert scene.weights(1) == [3, 6]
    assert len(made_of(scene, as_)) == 3
    assert made_of(scene, as_) == accepted(scene)


def test_an_update_is_rejected_once_with_the_first_reason(full_round):
    scene = full_round()
    update = Update.objects.get(participant=scene.participants[0])

    lifecycle.reject_update(update, reason="the first")
    lifecycle.reject_update(update, reason="the second")

    assert Update.objects.get(pk=update.pk).reason == "the first"
