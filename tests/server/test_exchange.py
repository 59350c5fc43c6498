"""Trainings in which only some tensors travel: adapters, or all but the statistics of batches."""

from __future__ import annotations

import io

import numpy as np
import pytest
import safetensors.numpy
import torch

from folkmoot.server.registry.models import Checkpoint
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings.sweeps import remove_orphaned_blobs
from folkmoot.tensors import TensorFile
from folkmoot.tensors.schema import BFLOAT16

pytestmark = pytest.mark.django_db

MODEL = {"body.weight": [1.0, 2.0], "head.lora": [0.0], "norm.running_mean": [9.0]}


@pytest.fixture
def lora(make_scene, make_model, make_user):
    """A started training of two participants and two rounds whose updates have only the adapters."""
    actor = make_user()
    options = {"exchange": ["*lora*"], "tests": "never"}
    return make_scene(actor=actor, model=make_model(actor, **MODEL), target_num_updates=2, options=options)


@pytest.fixture
def play(lora, work, tensors_file):
    """Send the same update from everybody, round after round."""

    def play_rounds(*updates):
        for number, tensors in enumerate(updates):
            for participant in lora.participants:
                assert lora.send_update(participant, round=number, file=tensors_file(**tensors)).status_code == 201
            work()

    return play_rounds


@pytest.fixture
def download(lora, as_):
    def get(user=None, **query):
        answer = as_(user or lora.actor).get(f"/api/models/{lora.model_id}/", query)
        assert answer.status_code == 200
        return {name: array.tolist() for name, array in safetensors.numpy.load(answer.getvalue()).items()}

    return get


def stored(round):
    """The file in the storage with what the last checkpoint of that round changed."""
    checkpoint = Checkpoint.objects.get(round=round)
    return {name: array.tolist() for name, array in TensorFile.open(get_storage().path(checkpoint.sha256)).items()}


def test_only_what_travels_changes_and_the_rest_stays_the_templates(lora, play, download):
    play({"head.lora": [4.0]}, {"head.lora": [6.0]})

    assert lora.state == "C"
    assert download() == MODEL | {"head.lora": [6.0]}
    assert download(round=1) == MODEL | {"head.lora": [4.0]}
    assert download(round=0) == MODEL


def test_the_updates_of_participants_are_averaged(lora, work, download, tensors_file):
    one, other = lora.participants
    lora.send_update(one, file=tensors_file(**{"head.lora": [1.0]}), sample_size=1)
    lora.send_update(other, file=tensors_file(**{"head.lora": [5.0]}), sample_size=3)
    work()

    assert download()["head.lora"] == [4.0]


def test_what_does_not_travel_is_stored_once(lora, play):
    play({"head.lora": [4.0]}, {"head.lora": [6.0]})

    first = Checkpoint.objects.get(round=0)
    assert [stored(number) for number in (1, 2)] == [{"head.lora": [4.0]}, {"head.lora": [6.0]}]
    assert {tuple(each.beneath) for each in Checkpoint.objects.filter(round__gt=0)} == {(first.sha256,)}


def test_programs_that_send_all_they_have_change_only_what_travels(play, download):
    play({"body.weight": [7.0, 7.0], "head.lora": [4.0], "norm.running_mean": [7.0]})

    assert download() == MODEL | {"head.lora": [4.0]}


def test_an_update_without_a_tensor_that_travels_is_refused_by_its_name(lora, tensors_file):
    answer = lora.send_update(lora.participants[0], file=tensors_file(**{"body.weight": [7.0, 7.0]}))

    assert answer.status_code == 400
    assert answer.json()["code"] == "schema_mismatch"
    assert "head.lora is missing" in answer.json()["detail"]


def test_participants_are_told_what_travels(lora, play):
    told = dict(lora.told(lora.participants[0]))

    assert told["UPDATE_ROUND_START"]["exchange"] == ["*lora*"]


def test_all_but_the_statistics_of_batches(make_scene, make_model, make_user, work, tensors_file, as_):
    actor = make_user()
    scene = make_scene(
        actor=actor, model=make_model(actor, **MODEL), options={"exchange": ["!*.running_*"], "tests": "never"}
    )
    for participant in scene.participants:
        scene.send_update(participant, file=tensors_file(**{"body.weight": [3.0, 3.0], "head.lora": [5.0]}))
    work()

    answer = as_(actor).get(f"/api/models/{scene.model_id}/")
    weights = {name: array.tolist() for name, array in safetensors.numpy.load(answer.getvalue()).items()}
    assert weights == {"body.weight": [3.0, 3.0], "head.lora": [5.0], "norm.running_mean": [9.0]}


@pytest.mark.parametrize(
    ("patterns", "status", "message"),
    [
        (["*adapter*"], 400, "options.exchange: no tensor of the model matches *adapter*"),
        (["*lora*", "heda.*"], 400, "options.exchange: no tensor of the model matches heda.*"),
        (["*", "!*"], 400, "options.exchange leaves no tensor of the model that travels"),
        ([], 400, "exchange"),
        (["*" * 513], 400, "exchange"),
        ("*lora*", 400, "exchange"),
        (["*lora*"], 201, ""),
    ],
)
def test_patterns_are_checked_against_the_model(as_, make_user, make_model, patterns, status, message):
    actor = make_user()
    body = {"model_id": str(make_model(actor, **MODEL).pk), "target_num_updates": 1, "aggregation_method": "FedAvg"}

    answer = as_(actor).send("POST", "/api/trainings/", body | {"options": {"exchange": patterns}})

    assert answer.status_code == status
    assert message in answer.content.decode()


def test_the_sweep_keeps_what_lies_beneath_even_if_its_own_checkpoint_is_gone(lora, play, download, settings):
    play({"head.lora": [4.0]})
    Checkpoint.objects.filter(round=0).delete()
    settings.ORPHAN_GRACE_SECONDS = 0
    type(lora.training.model).objects.update(template_sha256=Checkpoint.objects.get(round=1).sha256)

    remove_orphaned_blobs()

    base = Checkpoint.objects.get(round=1).beneath[0]
    assert get_storage().path(base).exists()


@pytest.fixture
def follow(lora, make_training, make_scene, as_, tensors_file, work):
    """Train the copy of the model that a second training gets, once, with other patterns."""

    def train_copy(exchange, **tensors):
        options = {"tests": "never"} | ({"exchange": exchange} if exchange else {})
        scene = make_scene(actor=lora.actor, model=lora.training.model, participants=lora.participants, options=options)
        for participant in scene.participants:
            number = scene.training.model.round
            assert scene.send_update(participant, round=number, file=tensors_file(**tensors)).status_code == 201
        work()
        return scene

    return train_copy


@pytest.mark.parametrize(
    ("exchange", "update", "num_files"),
    [
        (["*lora*"], {"head.lora": [8.0]}, 2),
        (["body.*"], {"body.weight": [8.0, 8.0]}, 3),
        (None, {"body.weight": [8.0, 8.0], "head.lora": [8.0], "norm.running_mean": [8.0]}, 1),
    ],
)
def test_a_copy_of_such_a_model_can_be_trained_on(lora, play, follow, as_, exchange, update, num_files):
    play({"head.lora": [4.0]}, {"head.lora": [6.0]})

    scene = follow(exchange, **update)

    answer = as_(lora.actor).get(f"/api/models/{scene.model_id}/")
    weights = {name: array.tolist() for name, array in safetensors.numpy.load(answer.getvalue()).items()}
    assert weights == MODEL | {"head.lora": [6.0]} | update
    assert 1 + len(scene.training.model.latest_checkpoint.beneath) == num_files


def test_a_copy_of_a_trained_model_is_no_longer_the_file_that_was_uploaded(lora, play, follow, as_):
    play({"head.lora": [4.0]}, {"head.lora": [6.0]})
    scene = follow(["*lora*"], **{"head.lora": [8.0]})

    answer = as_(lora.actor).get(f"/api/models/{scene.model_id}/?round=2")

    assert safetensors.numpy.load(answer.getvalue())["head.lora"].tolist() == [6.0]
    assert scene.training.model.parent_id == lora.model_id
    assert scene.training.model.parent_round == 2


def test_a_bfloat16_model_takes_float32_from_numpy_programs(make_scene, make_model, make_user, work, tensors_file):
    actor = make_user()
    scene = make_scene(actor=actor, model=make_model(actor, w=np.zeros(2, BFLOAT16)), options={"tests": "never"})

    for participant in scene.participants:
        assert scene.send_update(participant, w=[1.0, 2.001]).status_code == 201
    work()

    checkpoint = scene.training.model.latest_checkpoint
    weights = TensorFile.open(get_storage().path(checkpoint.sha256))["w"]
    assert weights.dtype == BFLOAT16
    assert weights.astype("f4").tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("patterns", "status"), [(["1.*"], 400), (["0.weight"], 400), (["*.weight"], 201), (["1.bias"], 201)]
)
def test_tensors_that_are_one_in_the_model_travel_together(as_, make_user, make_model, patterns, status):
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2))
    layers[0].weight = layers[1].weight
    file = io.BytesIO()
    torch.save(layers, file)
    actor = make_user()
    model = make_model(actor, file=file.getvalue())
    body = {"model_id": str(model.pk), "target_num_updates": 1, "aggregation_method": "FedAvg"}

    answer = as_(actor).send("POST", "/api/trainings/", body | {"options": {"exchange": patterns}})

    assert answer.status_code == status
    if status == 400:
        assert "0.weight, 1.weight are one tensor in the model" in answer.json()["detail"]
