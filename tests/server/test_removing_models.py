"""A model is removed: by whom, when, and what stays."""

from __future__ import annotations

import pytest

from folkmoot.server.registry.models import Checkpoint, Metric, Model
from folkmoot.server.trainings import sweeps

pytestmark = pytest.mark.django_db

MODELS = "/api/models/"


@pytest.fixture
def ended(make_scene, work):
    """A training of one round that is over, with a metric."""
    scene = make_scene(participants=1)
    scene.send_update(scene.participants[0])
    work()
    scene.report(scene.participants[0], loss=0.5)
    work()
    assert scene.state == "C"
    return scene


def test_a_model_is_removed(make_model, as_):
    model = make_model()

    answer = as_(model.owner).delete(f"{MODELS}{model.pk}/")

    assert (answer.status_code, answer.json()) == (200, {"detail": "Model removed!"})
    assert as_(model.owner).get(f"{MODELS}{model.pk}/").status_code == 404
    assert not Model.objects.exists()


@pytest.mark.parametrize("who", ["participant", "stranger"])
def test_only_its_owner_and_the_actor_remove_a_model(ended, as_, make_user, who):
    user = ended.participants[0] if who == "participant" else make_user()

    answer = as_(user).delete(f"{MODELS}{ended.model_id}/")

    assert answer.status_code == 403
    assert answer.json()["detail"] == (
        "You are neither the owner of the model nor the actor of the corresponding training."
    )


@pytest.mark.parametrize("started", [False, True])
def test_a_model_stays_while_its_training_is_not_over(make_scene, as_, started):
    scene = make_scene(started=started)

    answer = as_(scene.actor).delete(f"{MODELS}{scene.model_id}/")

    assert answer.status_code == 409
    assert answer.json() == {"detail": f"Model {scene.model_id} is used by training {scene.id}.", "code": "in_use"}
    assert as_(scene.actor).get(f"{MODELS}{scene.model_id}/").status_code == 200


def test_a_local_model_is_its_rounds(make_scene, as_):
    scene = make_scene()
    local = scene.send_update(scene.participants[0]).json()["update_id"]

    answer = as_(scene.participants[0]).delete(f"{MODELS}{local}/")

    assert (answer.status_code, answer.json()["detail"]) == (409, f"Model {local} is used by training {scene.id}.")
    assert as_(scene.participants[1]).delete(f"{MODELS}{local}/").status_code == 403


def test_a_training_keeps_its_history_without_its_model(ended, as_):
    before = ended.shown

    assert as_(ended.actor).delete(f"{MODELS}{ended.model_id}/").status_code == 200

    assert ended.shown == before
    assert before["rounds"][0]["metrics"]["test"]
    assert as_(ended.actor).get(f"/api/trainings/{ended.id}/models/").json() == []


@pytest.mark.parametrize("path", ["", "metadata/", "checkpoints/", "lineage/", "metrics/", "preprocessing/"])
def test_nothing_of_a_removed_model_is_shown_again(ended, as_, path):
    as_(ended.actor).delete(f"{MODELS}{ended.model_id}/")

    answer = as_(ended.actor).get(f"{MODELS}{ended.model_id}/{path}")

    assert (answer.status_code, answer.json()["detail"]) == (404, f"Model {ended.model_id} not found.")
    assert as_(ended.actor).get(MODELS).json() == []


def test_the_files_of_a_removed_model_go(ended, as_, storage, settings):
    sha256 = Model.objects.get().template_sha256
    as_(ended.actor).delete(f"{MODELS}{ended.model_id}/")
    settings.ORPHAN_GRACE_SECONDS = 0

    sweeps.remove_orphaned_blobs()

    assert not Checkpoint.objects.exists()
    assert not storage.path(sha256).exists()


def test_a_removed_model_is_not_trained_again(ended, as_):
    as_(ended.actor).delete(f"{MODELS}{ended.model_id}/")
    body = {"model_id": str(ended.model_id), "target_num_updates": 1, "aggregation_method": "FedAvg"}

    answer = as_(ended.actor).send("POST", "/api/trainings/", body)

    assert (answer.status_code, answer.json()["detail"]) == (400, f"Model {ended.model_id} not found.")


def test_nothing_is_left_of_a_removed_model_once_its_training_is_removed_too(ended, as_):
    as_(ended.actor).delete(f"{MODELS}{ended.model_id}/")

    assert as_(ended.actor).delete(f"/api/trainings/{ended.id}/").status_code == 200

    assert not Model._base_manager.exists()
    assert not Metric.objects.exists()


def test_a_copy_outlives_the_model_that_it_was_made_of(ended, as_):
    body = {"model_id": str(ended.model_id), "target_num_updates": 1, "aggregation_method": "FedAvg"}
    training = as_(ended.actor).send("POST", "/api/trainings/", body).json()["training_id"]
    copy = as_(ended.actor).get(f"/api/trainings/{training}/").json()["model"]

    as_(ended.actor).delete(f"{MODELS}{ended.model_id}/")

    assert as_(ended.actor).get(f"{MODELS}{copy}/").status_code == 200
    lineage = as_(ended.actor).get(f"{MODELS}{copy}/lineage/").json()
    assert lineage["ancestors"] == [{"id": None, "at_round": 1, "model": None}]


def test_a_failed_training_without_its_model_shows_no_local_models(make_scene, as_, work):
    scene = make_scene(options={"round_retries": 0})
    scene.send_update(scene.participants[0])
    scene.let_deadline_pass()
    assert scene.state == "E"

    as_(scene.actor).delete(f"{MODELS}{scene.model_id}/")

    assert as_(scene.actor).get(f"/api/trainings/{scene.id}/models/").json() == []
    assert as_(scene.actor).get(MODELS).json() == []
