"""A MEAN model is an ensemble: it names other models, and has no tensors of its own."""

from __future__ import annotations

import io
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from folkmoot.server.registry.models import Model

pytestmark = pytest.mark.django_db

MODELS = "/api/models/"
UNKNOWN = str(UUID(int=1))


@pytest.fixture
def ada(make_user):
    return make_user("ada")


@pytest.fixture
def members(make_model, ada):
    return [str(make_model(ada).pk) for _ in range(2)]


@pytest.fixture
def create(as_, ada, members):
    """A function that creates a good ensemble, but for what it is told to change; None leaves a field out."""

    def send(**fields):
        fields = {"name": "e", "description": "d", "type": "MEAN", "models": members} | fields
        return as_(ada).send("POST", MODELS, {name: value for name, value in fields.items() if value is not None})

    return send


@pytest.fixture
def ensemble(create):
    return create().json()["model_id"]


def test_an_ensemble_is_made_of_ones_models_and_names_them_in_order(create, as_, ada, members):
    members.reverse()

    answer = create(models=members, input_shape=[None, 28])

    ensemble = answer.json()["model_id"]
    assert answer.status_code == 201
    assert answer.json() == {"detail": "Model Upload Accepted", "model_id": ensemble}
    assert answer["Location"].endswith(f"{MODELS}{ensemble}/")
    assert as_(ada).get(MODELS).json()[-1] == {
        "id": ensemble,
        "owner": str(ada.pk),
        "round": 0,
        "name": "e",
        "description": "d",
        "input_shape": [None, 28],
        "preprocessing": None,
        "has_preprocessing": False,
        "models": members,
    }


def test_a_member_named_twice_counts_once(create, as_, ada, members):
    ensemble = create(models=[members[0], members[0]]).json()["model_id"]

    assert as_(ada).get(f"{MODELS}{ensemble}/metadata/").json()["name"] == "e"
    assert as_(ada).get(MODELS).json()[-1]["models"] == members[:1]


def test_other_models_name_no_members(make_model, as_, ada):
    make_model(ada)

    assert "models" not in as_(ada).get(MODELS).json()[0]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": None}, "Missing required field: name"),
        ({"description": None}, "Missing required field: description"),
        ({"models": None}, "Missing required field: models"),
        ({"models": [UNKNOWN]}, f"Model {UNKNOWN} not found."),
        ({"models": ["x"]}, "Model x not found."),
    ],
)
def test_what_is_wrong_with_an_ensemble_is_said(create, members, fields, sentence):
    answer = create(**fields)

    assert (answer.status_code, answer.json()["detail"]) == (400, sentence)
    assert Model.objects.count() == len(members)


@pytest.mark.parametrize("models", [[], "all", {}, [[]], [None]])
def test_the_members_must_be_a_list_of_ids(create, models):
    assert create(models=models).status_code == 400


def test_someone_elses_model_is_no_member(create, make_model):
    answer = create(models=[str(make_model().pk)])

    assert answer.status_code == 403
    assert answer.json()["detail"] == "You do not have permission to perform this action."


def test_an_ensemble_is_no_member_of_another(create, ensemble):
    answer = create(models=[ensemble])

    assert answer.status_code == 400
    assert answer.json()["detail"] == f"Model {ensemble} is a MEAN model itself; name its members instead."


def test_the_download_of_an_ensemble_names_what_can_be_downloaded(ensemble, members, as_, ada):
    answer = as_(ada).get(f"{MODELS}{ensemble}/")

    assert answer.status_code == 409
    assert answer.json()["code"] == "made_of_models"
    assert all(member in answer.json()["detail"] for member in members)


def test_an_ensemble_is_not_trained(ensemble, as_, ada):
    body = {"model_id": ensemble, "target_num_updates": 1, "aggregation_method": "FedAvg"}

    answer = as_(ada).send("POST", "/api/trainings/", body)

    assert answer.status_code == 400
    assert f"Model {ensemble} is a MEAN model" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ("metadata", {"tensors": [], "template": None}),
        ("lineage", {"template": None}),
        ("checkpoints", []),
        ("metrics", []),
    ],
)
def test_what_there_is_to_say_about_an_ensemble_is_said(ensemble, as_, ada, what, shown):
    answer = as_(ada).get(f"{MODELS}{ensemble}/{what}/")

    assert answer.status_code == 200
    assert answer.json() == shown if isinstance(shown, list) else answer.json().items() >= shown.items()


def test_an_ensemble_takes_no_update(ensemble, as_, ada, tensors_file):
    fields = {"round": 0, "sample_size": 1, "model_file": io.BytesIO(tensors_file(w=[1, 2]))}

    answer = as_(ada).post(f"{MODELS}{ensemble}/", fields)

    assert answer.status_code == 404
    assert answer.json()["detail"] == f"Model with ID {ensemble} does not have a training process running"


def test_a_member_stays_for_as_long_as_its_ensemble(ensemble, members, as_, ada):
    answer = as_(ada).delete(f"{MODELS}{members[0]}/")

    assert (answer.status_code, answer.json()["detail"]) == (409, f"Model {members[0]} is used by model {ensemble}.")
    assert as_(ada).delete(f"{MODELS}{ensemble}/").status_code == 200
    assert as_(ada).delete(f"{MODELS}{members[0]}/").status_code == 200


def test_a_list_of_ensembles_takes_no_more_queries_than_a_list_of_one(create, as_, ada, django_assert_num_queries):

    create()
    with CaptureQueriesContext(
        connection,
    ) as one:
        as_(ada).get(MODELS)
    count = len(one)
    for _ in range(5):
        create()

    with django_assert_num_queries(count):
        as_(ada).get(MODELS)


def test_an_ensemble_of_many_is_made_in_as_many_queries_as_one_of_two(create, make_model, ada, members):
    create()  # who calls is noted with the first request of a while
    with CaptureQueriesContext(connection) as of_two:
        create()
    many = [*members, *(str(make_model(ada).pk) for _ in range(10))]

    with CaptureQueriesContext(connection) as of_many:
        assert create(models=many).status_code == 201

    assert len(of_many) == len(of_two)
