"""Who may do what: one row for each thing that can be asked of someone's model or training."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.django_db

WHO = ("nobody", "stranger", "participant", "actor", "owner", "staff", "disabled")

# For each question: the status that each of WHO gets. `actor` owns the training and its model, `owner` only owns
# a model that nobody trains; questions about a training are put to the owner as to a stranger.
TABLE = {
    "GET models/<id>/": (401, 403, 200, 200, 403, 200, 401),
    "GET models/<id>/metadata/": (401, 403, 200, 200, 403, 200, 401),
    "DELETE models/<id>/": (401, 403, 403, 409, 403, 403, 401),
    "POST models/<id>/swag/": (401, 403, 400, 403, 403, 403, 401),
    "GET models/<id>/preprocessing/": (401, 403, 404, 404, 403, 404, 401),
    "POST models/<id>/preprocessing/": (401, 403, 403, 400, 403, 403, 401),
    "GET models/<id>/checkpoints/": (401, 403, 200, 200, 403, 200, 401),
    "GET models/<id>/lineage/": (401, 403, 200, 200, 403, 200, 401),
    "GET models/<id>/metrics/": (401, 403, 200, 200, 403, 200, 401),
    "POST models/<id>/metrics/": (401, 403, 201, 201, 403, 403, 401),
    "GET trainings/<id>/": (401, 403, 200, 200, 403, 200, 401),
    "GET trainings/<id>/models/": (401, 403, 200, 200, 403, 200, 401),
    "GET trainings/<id>/models/latest/": (401, 403, 200, 200, 403, 200, 401),
    "DELETE trainings/<id>/": (401, 403, 403, 200, 403, 403, 401),
    "POST trainings/<id>/start/": (401, 403, 202, 202, 403, 403, 401),
    "PUT trainings/<id>/clients/": (401, 403, 202, 202, 403, 403, 401),
    "POST trainings/<id>/clients/": (401, 403, 202, 202, 403, 403, 401),
    "DELETE trainings/<id>/clients/": (401, 403, 200, 200, 403, 403, 401),
}
# Questions that everybody who has signed in may ask.
OPEN_TO_USERS = (
    "GET users/",
    "GET users/myself/",
    "GET users/<user>/",
    "GET users/groups/",
    "GET users/trainings/",
    "GET tokens/",
    "GET models/",
    "GET trainings/",
    "GET notifications/",
    "GET uploads/",
)
OPEN_TO_ALL = ("GET ", "GET schema/", "GET schema/swagger-ui/", "GET schema/redoc/")


@pytest.fixture
def people(make_training, make_model, make_user):
    training = make_training(participants=1)
    model = make_model()
    return {
        "nobody": None,
        "stranger": make_user(),
        "participant": training.participants.get(),
        "actor": training.actor,
        "owner": model.owner,
        "staff": make_user(is_staff=True),
        "disabled": make_user(is_active=False),
        "training": training,
    }


@pytest.fixture
def ask(people, as_, anonymous):
    def send(who, question):
        method, path = question.split(" ")
        training = people["training"]
        thing = training.model_id if path.startswith("models") else training.pk
        path = path.replace("<id>", str(thing)).replace("<user>", str(training.actor_id))
        caller = anonymous if people[who] is None else as_(people[who])
        body = None
        if "metrics" in path:
            body = {"metric_names": ["loss"], "metric_values": [1]}
        elif "swag" in path:
            body = {"round": 1, "sample_size": 0}
        elif "clients" in path:
            body = {"clients": []}
        return caller.send(method, f"/api/{path}", body if method != "GET" else None)

    return send


@pytest.mark.parametrize("question", TABLE)
@pytest.mark.parametrize("who", WHO)
def test_who_may_do_what(ask, who, question):
    assert ask(who, question).status_code == TABLE[question][WHO.index(who)]


@pytest.mark.parametrize("question", OPEN_TO_USERS)
@pytest.mark.parametrize(("who", "status"), [("nobody", 401), ("disabled", 401), ("stranger", 200), ("staff", 200)])
def test_some_questions_are_answered_to_everyone_who_has_signed_in(ask, question, who, status):
    assert ask(who, question).status_code == status


@pytest.mark.parametrize("question", OPEN_TO_ALL)
def test_the_resources_and_the_schema_are_open(ask, question):
    assert ask("nobody", question).status_code == 200


@pytest.mark.parametrize("who", ["stranger", "participant", "staff"])
def test_only_ones_own_trainings_are_listed(ask, who):
    assert ask(who, "GET trainings/").json() == []


def test_ones_own_trainings_are_listed(ask, people):
    assert [each["id"] for each in ask("actor", "GET trainings/").json()] == [str(people["training"].pk)]


@pytest.mark.parametrize("who", ["stranger", "owner", "staff"])
def test_a_model_of_someone_elses_training_is_not_listed(ask, people, who):
    listed = {each["id"] for each in ask(who, "GET models/").json()}

    assert (str(people["training"].model_id) in listed) == (who == "staff")


def test_the_owner_of_a_model_sees_it(as_, make_model):
    model = make_model()

    assert as_(model.owner).get(f"/api/models/{model.pk}/").status_code == 200


def test_every_route_has_its_row(settings):
    """A route that is added has to say here who may use it."""
    from django.urls import get_resolver

    def routes(resolver, prefix=""):
        for entry in resolver.url_patterns:
            path = prefix + str(entry.pattern)
            yield from routes(entry, path) if hasattr(entry, "url_patterns") else [(path, entry.callback)]

    def asked(path, callback):
        path = path.removeprefix("api/").replace("^", "").replace("$", "").replace("(?P<pk>[/]+)", "<id>")
        methods = getattr(callback, "actions", None) or {"get": ""}
        return {f"{method.upper()} {path}" for method in methods if method != "head"}

    found = {
        each for path, callback in routes(get_resolver()) if path.startswith("api/") for each in asked(path, callback)
    }
    elsewhere = {
        # test_rounds.py
        "POST models/<id>/",
        "PUT models/<id>/update/",
        # test_uploads.py
        "GET uploads/<id>/",
        "PATCH uploads/<id>/",
        "DELETE uploads/<id>/",
        "POST uploads/<id>/commit/",
        # test_accounts.py
        "POST users/",
        "GET users/<id>/",
        "PATCH users/myself/",
        "POST tokens/",
        "DELETE tokens/<id>/",
        # test_users.py
        "PUT users/<id>/password/",
        "DELETE users/<id>/password/",
        # test_groups.py
        "GET groups/",
        "POST groups/",
        "GET groups/<id>/",
        "PUT groups/<id>/",
        "PATCH groups/<id>/",
        "DELETE groups/<id>/",
        "PUT groups/<id>/members/",
        "DELETE groups/<id>/members/",
        # Open to everyone who has signed in: the thing made belongs to its maker.
        "POST models/",
        "POST trainings/",
        "POST uploads/",
    }
    assert found - elsewhere == set(TABLE) | set(OPEN_TO_ALL) | set(OPEN_TO_USERS) - {"GET users/<user>/"}
