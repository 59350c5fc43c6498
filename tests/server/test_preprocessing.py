"""A model may have a module that its inputs go through first: kept as it came, never run."""

from __future__ import annotations

import io

import numpy as np
import pytest

from folkmoot.server.registry.models import Model
from folkmoot.server.trainings import sweeps

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.django_db

MODELS = "/api/models/"


def saved(thing, name="preprocessing.pt"):
    file = io.BytesIO()
    torch.save(thing, file)
    return named(file.getvalue(), name)


def named(data, name="preprocessing.pt"):
    file = io.BytesIO(data)
    file.name = name
    return file


class Scale(torch.nn.Module):
    """A class of the user's own: as a plain module it would have to be run by whoever loads it."""

    def forward(self, x):
        return x / 255


def scripted():
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(Scale()), file)
    return named(file.getvalue())


def plain():
    return saved(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Softmax(dim=1)))


def with_parameters():
    return saved(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)))


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def send(as_, model):
    def post(file, user=model.owner):
        return as_(user).post(f"{MODELS}{model.pk}/preprocessing/", {"model_preprocessing_file": file})

    return post


@pytest.mark.parametrize("make", [scripted, plain, with_parameters])
def test_a_module_is_taken_and_comes_back_as_it_went(send, as_, model, make):
    file = make()

    answer = send(file)

    assert answer.status_code == 202
    assert answer.json() == {"detail": "Proprocessing Model Upload Accepted"}
    back = as_(model.owner).get(f"{MODELS}{model.pk}/preprocessing/")
    assert back.getvalue() == file.getvalue()
    assert back["Content-Type"] == "application/octet-stream"


def test_a_model_says_where_its_preprocessing_is(send, as_, model):
    send(plain())

    for shown in (as_(model.owner).get(MODELS).json()[0], as_(model.owner).get(f"{MODELS}{model.pk}/metadata/").json()):
        assert shown["has_preprocessing"] is True
        assert shown["preprocessing"].endswith(f"{MODELS}{model.pk}/preprocessing/")


def test_a_model_without_one_says_so(as_, model):
    answer = as_(model.owner).get(f"{MODELS}{model.pk}/preprocessing/")

    assert answer.status_code == 404
    assert answer.json()["detail"] == f"Model '{model.pk}' has no preprocessing model defined."


def test_a_new_one_takes_the_place_of_the_first(send, as_, model, storage, settings):
    send(plain())
    first = Model.objects.get().preprocessing_sha256
    file = scripted()
    send(file)

    assert as_(model.owner).get(f"{MODELS}{model.pk}/preprocessing/").getvalue() == file.getvalue()
    settings.ORPHAN_GRACE_SECONDS = 0
    sweeps.remove_orphaned_blobs()
    assert not storage.path(first).exists()
    assert storage.path(Model.objects.get().preprocessing_sha256).exists()


def test_it_may_come_with_the_model(as_, make_user, tensors_file):
    ada, file = make_user(), plain()
    fields = {
        "name": "m",
        "description": "d",
        "model_file": named(tensors_file(w=[1])),
        "model_preprocessing_file": file,
    }

    answer = as_(ada).post(MODELS, fields)

    assert answer.status_code == 201
    back = as_(ada).get(f"{MODELS}{answer.json()['model_id']}/preprocessing/")
    assert back.getvalue() == file.getvalue()


def test_a_model_is_not_taken_with_one_that_is_none(as_, make_user, tensors_file):
    fields = {"name": "m", "description": "d", "model_file": named(tensors_file(w=[1]))}

    answer = as_(make_user()).post(MODELS, fields | {"model_preprocessing_file": named(b"x")})

    assert answer.status_code == 400
    assert not Model.objects.exists()


def test_only_the_owner_sets_it(make_scene, as_):
    scene = make_scene()
    path = f"{MODELS}{scene.model_id}/preprocessing/"

    answer = as_(scene.participants[0]).post(path, {"model_preprocessing_file": plain()})

    assert answer.status_code == 403
    assert answer.json()["detail"] == f"You are not the owner of model {scene.model_id}!"


def test_a_participant_downloads_it(make_scene, as_):
    scene = make_scene()
    path = f"{MODELS}{scene.model_id}/preprocessing/"
    as_(scene.actor).post(path, {"model_preprocessing_file": plain()})

    assert as_(scene.participants[0]).get(path).status_code == 200


def test_the_copy_for_a_second_training_has_it_too(send, make_training, as_, model):
    send(plain())
    make_training(model.owner, model=model)

    copy = make_training(model.owner, model=model).model_id

    assert copy != model.pk
    assert as_(model.owner).get(f"{MODELS}{copy}/preprocessing/").status_code == 200


def npz():
    file = io.BytesIO()
    np.savez(file, w=[1.0])
    return named(file.getvalue())


@pytest.mark.parametrize(
    ("make", "code", "named_in_it"),
    [
        (lambda: saved(Scale()), "unknown_class", "Scale"),
        (lambda: saved({"w": torch.zeros(1)}), "invalid_file", "a dictionary; expected a module or TorchScript"),
        (lambda: saved(torch.zeros(1)), "invalid_file", "a tensor; expected a module or TorchScript"),
        (npz, "unsupported_container", "npz is no preprocessing module"),
        (lambda: named(b"\x00" * 100), "unsupported_container", ""),
        (lambda: named(b""), "unsupported_container", ""),
        (lambda: named(plain().getvalue()[:-30]), "invalid_file", ""),
    ],
)
def test_what_is_no_module_that_can_be_read_safely_is_refused(send, model, make, code, named_in_it):
    answer = send(make())

    assert answer.status_code == 400
    assert answer.json()["code"] == code
    assert named_in_it in answer.json()["detail"]
    model.refresh_from_db()
    assert model.preprocessing_sha256 == ""


def test_without_a_file_that_is_said(as_, model):
    answer = as_(model.owner).post(f"{MODELS}{model.pk}/preprocessing/", {})

    assert answer.status_code == 400
    assert answer.json()["detail"] == "No uploaded file 'model_preprocessing_file' found."
