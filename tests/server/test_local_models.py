"""An update is a model of its own, from when it comes in until its round is aggregated."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
import safetensors.numpy
from valid_requests import incoming, preprocessing_file

from folkmoot.server.registry.preprocessing import set_preprocessing

pytestmark = pytest.mark.django_db

MODELS = "/api/models/"


@pytest.fixture
def scene(make_scene):
    """A round in which one of two participants has answered."""
    scene = make_scene()
    scene.local = scene.send_update(scene.participants[0], w=[5, 6], sample_size=7).json()["update_id"]
    return scene


def ids(answer):
    return [each["id"] for each in answer.json()]


def test_a_local_model_is_shown_with_what_is_known_of_it(scene, as_):
    answer = as_(scene.actor).get(f"/api/trainings/{scene.id}/models/")

    globally, local = answer.json()
    assert globally["id"] == str(scene.model_id)
    assert local == {
        "id": scene.local,
        "owner": str(scene.participants[0].pk),
        "round": 0,
        "base_model": str(scene.model_id),
        "sample_size": 7,
    }


def test_a_local_model_is_downloaded_as_the_global_one_would_be(scene, as_):
    answer = as_(scene.participants[0]).get(f"{MODELS}{scene.local}/")

    assert safetensors.numpy.load(answer.getvalue())["w"].tolist() == [5, 6]
    assert answer["Content-Disposition"] == f'attachment; filename="model-{scene.local}.pt"'


def test_a_local_model_is_what_the_update_says_over_what_did_not_travel(make_scene, make_model, make_user, as_):
    actor = make_user()
    model = make_model(actor, body=[1, 2], head=[3])
    scene = make_scene(actor=actor, model=model, options={"exchange": ["head"]})
    file = safetensors.numpy.save({"head": np.array([9], "f4")})
    local = scene.send_update(scene.participants[0], file=file).json()["update_id"]

    whole = safetensors.numpy.load(as_(actor).get(f"{MODELS}{local}/").getvalue())
    part = safetensors.numpy.load(as_(actor).get(f"{MODELS}{local}/?part=exchange").getvalue())

    assert {name: tensor.tolist() for name, tensor in whole.items()} == {"body": [1, 2], "head": [9]}
    assert {name: tensor.tolist() for name, tensor in part.items()} == {"head": [9]}


def test_a_local_model_comes_in_other_formats_too(scene, as_):
    answer = as_(scene.actor).get(f"{MODELS}{scene.local}/?as=npz")

    assert answer.getvalue()[:2] == b"PK"
    assert f"model-{scene.local}.npz" in answer["Content-Disposition"]


def test_a_local_model_has_the_rounds_of_no_other(scene, as_):
    assert as_(scene.actor).get(f"{MODELS}{scene.local}/?round=0").status_code == 200
    assert as_(scene.actor).get(f"{MODELS}{scene.local}/?round=1").status_code == 404


@pytest.mark.parametrize("path", ["", "metadata/"])
def test_only_its_owner_the_actor_and_staff_see_a_local_model(scene, as_, make_user, anonymous, path):
    one, other = scene.participants
    askers = [one, scene.actor, make_user(is_staff=True), other, make_user()]

    statuses = [as_(who).get(f"{MODELS}{scene.local}/{path}").status_code for who in askers]

    assert statuses == [200, 200, 200, 403, 403]
    assert anonymous.get(f"{MODELS}{scene.local}/{path}").status_code == 401


def test_the_metadata_of_a_local_model_name_its_tensors(scene, as_):
    shown = as_(scene.actor).get(f"{MODELS}{scene.local}/metadata/").json()

    assert shown["base_model"] == str(scene.model_id)
    assert shown["stats"] is None
    assert [(each["name"], each["shape"]) for each in shown["tensors"]] == [("w", [2])]


def test_local_models_are_listed_to_those_who_may_see_them(scene, as_, make_user):
    one, other = scene.participants

    assert ids(as_(one).get(MODELS)) == [str(scene.model_id), scene.local]
    assert ids(as_(scene.actor).get(MODELS)) == [str(scene.model_id), scene.local]
    assert ids(as_(other).get(MODELS)) == [str(scene.model_id)]
    assert ids(as_(make_user()).get(MODELS)) == []


def test_local_models_leave_once_they_are_aggregated(scene, as_, work):
    scene.send_update(scene.participants[1])
    work()

    assert ids(as_(scene.actor).get(f"/api/trainings/{scene.id}/models/")) == [str(scene.model_id)]
    assert ids(as_(scene.actor).get(MODELS)) == [str(scene.model_id)]
    answer = as_(scene.participants[0]).get(f"{MODELS}{scene.local}/")
    assert (answer.status_code, answer.json()["detail"]) == (404, f"Model {scene.local} not found.")


def test_their_bytes_stay_after_that(scene, work, storage):
    scene.send_update(scene.participants[1])
    work()

    updates = scene.training.rounds.get().updates.all()
    assert [storage.path(update.sha256).exists() for update in updates] == [True, True]


@pytest.mark.parametrize("path", ["models/", "models/latest/"])
def test_who_does_not_see_a_training_does_not_see_its_models(scene, as_, make_user, path):
    path = f"/api/trainings/{scene.id}/{path}"

    assert as_(scene.participants[1]).get(path).status_code == 200
    assert as_(make_user()).get(path).status_code == 403


def test_the_latest_models_are_the_global_one_and_the_newest_of_each_participant(scene, as_):
    answer = as_(scene.actor).get(f"/api/trainings/{scene.id}/models/latest/")

    assert ids(answer) == [str(scene.model_id), scene.local]


@pytest.mark.parametrize("what", ["checkpoints", "lineage"])
def test_a_local_model_has_no_history(scene, as_, what):
    answer = as_(scene.actor).get(f"{MODELS}{scene.local}/{what}/")

    sentence = f"Local model {scene.local} has no {what}; ask for that of model {scene.model_id}."
    assert (answer.status_code, answer.json()["detail"]) == (404, sentence)


def test_the_metrics_of_a_local_model_are_those_that_came_with_it(scene, as_):
    one, other = scene.participants
    scene.report(one, note=1)
    scene.send_update(other, metric_names=["loss"], metric_values=[2])
    local = scene.training.rounds.get().updates.get(participant=other).pk

    (shown,) = as_(other).get(f"{MODELS}{local}/metrics/").json()

    assert (shown["key"], shown["value_float"], shown["reporter"]) == ("loss", 2, str(other.pk))
    assert as_(scene.actor).get(f"{MODELS}{scene.local}/metrics/").json() == []
    assert as_(scene.actor).get(f"{MODELS}{local}/metrics/?key=accuracy&limit=1")["X-Total-Count"] == "0"


def test_a_local_models_inputs_go_through_what_the_global_ones_go_through(scene, as_):
    path = f"{MODELS}{scene.local}/preprocessing/"
    before = as_(scene.actor).get(path)
    set_preprocessing(scene.training.model, incoming(preprocessing_file()))

    after = as_(scene.actor).get(path)

    sentence = f"Model '{scene.model_id}' has no preprocessing model defined."
    assert (before.status_code, before.json()["detail"]) == (404, sentence)
    assert after.getvalue() == preprocessing_file()


@pytest.mark.parametrize("what", ["metrics", "preprocessing", "checkpoints", "lineage"])
def test_nothing_of_a_local_model_is_anothers(scene, as_, what):
    assert as_(scene.participants[1]).get(f"{MODELS}{scene.local}/{what}/").status_code == 403


@pytest.mark.parametrize("what", ["metrics", "preprocessing"])
def test_nothing_is_added_to_a_local_model(scene, as_, what):
    answer = as_(scene.participants[0]).send("POST", f"{MODELS}{scene.local}/{what}/", {})

    assert (answer.status_code, answer.json()["detail"]) == (404, f"Model {scene.local} not found.")


def test_an_unknown_id_is_no_model_of_any_kind(as_, make_user):
    unknown = UUID(int=3)

    assert as_(make_user()).get(f"{MODELS}{unknown}/").json()["detail"] == f"Model {unknown} not found."
