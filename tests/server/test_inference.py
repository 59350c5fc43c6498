"""Predictions: what is asked is checked as it will be, and then refused."""

from __future__ import annotations

import io
from uuid import UUID

import pytest

pytestmark = pytest.mark.django_db

INFERENCE = "/api/inference/"
NO_MODEL = "No 'model_id' provided in request."
NO_INPUT = "No uploaded file 'model_input' found."


@pytest.fixture
def owner(make_user):
    return make_user()


@pytest.fixture
def model(make_model, owner):
    return str(make_model(owner).pk)


@pytest.fixture
def ask(as_, owner):
    """A function: ask in JSON."""
    return lambda user=None, **fields: as_(user or owner).send("POST", INFERENCE, fields)


@pytest.fixture
def ask_by_form(as_, owner):
    return lambda user=None, **fields: as_(user or owner).post(INFERENCE, fields)


def file_of(data=b"an image"):
    file = io.BytesIO(data)
    file.name = "input.png"
    return file


def is_refused(answer):
    return answer.status_code == 501 and answer.json()["code"] == "not_installed"


@pytest.mark.parametrize("model_input", [[[1, 2.5], [3, 4]], "iVBORw0KGgo="])
@pytest.mark.parametrize("more", [{}, {"return_format": "json"}, {"return_format": "binary"}])
def test_what_is_asked_well_is_refused_since_nothing_predicts_yet(ask, model, model_input, more):
    answer = ask(model_id=model, model_input=model_input, **more)

    assert is_refused(answer)
    assert "folkmoot[torch]" in answer.json()["detail"]


@pytest.mark.parametrize("given", [file_of, lambda: "iVBORw0KGgo="])
@pytest.mark.parametrize("more", [{}, {"return_format": "safetensors"}])
def test_a_form_may_hold_a_file_or_text(ask_by_form, model, given, more):
    assert is_refused(ask_by_form(model_id=model, model_input=given(), **more))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model_id": None}, NO_MODEL),
        ({"model_id": ""}, NO_MODEL),
        ({"model_input": None}, NO_INPUT),
        ({"model_input": ""}, NO_INPUT),
        ({"model_input": []}, NO_INPUT),
        ({"return_format": "xml"}, "Unknown return format 'xml'. Supported are binary and json."),
        ({"model_input": 5}, "model_input must be nested lists of numbers, or a file in base64"),
        ({"model_id": str(UUID(int=1))}, f"Model {UUID(int=1)} not found."),
        ({"model_id": "mine"}, "Model mine not found."),
    ],
)
def test_what_is_asked_badly_is_refused_in_the_seeds_words(ask, model, fields, sentence):
    answer = ask(**{"model_id": model, "model_input": [[1]], **fields})

    assert (answer.status_code, answer.json()["detail"]) == (400, sentence)


def test_what_is_missing_is_told_one_after_the_other(ask, ask_by_form, model):
    assert ask().json() == {"detail": NO_MODEL, "code": "invalid_value"}
    assert ask_by_form().json()["detail"] == NO_MODEL
    assert ask(model_id=model).json()["detail"] == NO_INPUT
    assert ask_by_form(model_id=model, return_format="xml").json()["detail"] == NO_INPUT


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_any_other_body_is_of_the_wrong_kind(as_, owner, content_type):
    answer = as_(owner).post(INFERENCE, b"model_id=1", content_type=content_type)

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_a_model_that_one_may_not_see_is_not_asked(ask, make_user, model):
    answer = ask(make_user(), model_id=model, model_input=[[1]])

    assert answer.status_code == 403
    assert answer.json()["detail"] == "You do not have permission to perform this action."


def test_models_of_all_kinds_may_be_asked(ask, make_scene, as_, make_user):
    scene = make_scene(uncertainty_method="SWAG")
    one, other = scene.participants
    local = scene.send_update(one).json()["update_id"]
    mean = {"type": "MEAN", "name": "both", "description": "d", "models": [str(scene.model_id)]}
    mean = as_(scene.actor).send("POST", "/api/models/", mean).json()["model_id"]

    for model in (str(scene.model_id), mean, local):
        assert is_refused(ask(scene.actor, model_id=model, model_input=[[1]]))
    assert is_refused(ask(one, model_id=local, model_input=[[1]]))
    assert ask(other, model_id=local, model_input=[[1]]).status_code == 403
