"""What looks like a mistake is refused, and not taken for something near to it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada(make_user, as_):
    return as_(make_user("ada"))


@pytest.mark.parametrize(
    "path", ["users", "models", "trainings", "tokens", "users/groups", "users/trainings", "notifications"]
)
def test_a_list_refuses_a_parameter_that_it_does_not_know(ada, path):
    answer = ada.get(f"/api/{path}/?nmae=x")

    assert answer.status_code == 400
    assert answer.json() == {"nmae": ["Unknown parameter."]}


def test_a_list_takes_the_frameworks_own_parameter_and_what_browsers_add_to_fetch_anew(ada):
    assert ada.get("/api/users/?format=json&limit=1&_=1732370000").status_code == 200


@pytest.mark.parametrize("query", ["as=", "part=", "round="])
def test_a_download_refuses_an_empty_parameter(make_user, make_model, as_, query):
    user = make_user()

    assert as_(user).get(f"/api/models/{make_model(user).pk}/?{query}").status_code == 400


def test_a_number_is_no_name(ada):
    assert ada.send("POST", "/api/tokens/", {"name": 1}).status_code == 400
    assert ada.send("PATCH", "/api/users/myself/", {"first_name": 1}).status_code == 400


def test_true_is_no_number_of_seconds(make_user, make_model, as_):
    user = make_user()
    wanted = {
        "model_id": str(make_model(user).pk),
        "target_num_updates": 1,
        "aggregation_method": "FedAvg",
        "options": {"round_timeout": True},
    }

    assert as_(user).send("POST", "/api/trainings/", wanted).status_code == 400


def test_digits_do_for_a_number_as_in_the_seed(make_user, make_model, as_):
    user = make_user()
    wanted = {"model_id": str(make_model(user).pk), "target_num_updates": "3", "aggregation_method": "FedAvg"}

    assert as_(user).send("POST", "/api/trainings/", wanted).status_code == 201
