"""A training is created, gets its participants, is started and removed."""

from __future__ import annotations

import io
import json
from uuid import UUID

import pytest

from folkmoot.aggregation import strategies
from folkmoot.server.registry.models import Model
from folkmoot.server.trainings.models import Training

pytestmark = pytest.mark.django_db

UNKNOWN = str(UUID(int=1))
TRAININGS = "/api/trainings/"


@pytest.fixture
def ada(make_user):
    return make_user("ada")


@pytest.fixture
def create(as_, ada, make_model):
    """A function that creates a good training, but for what it is told to change; None leaves a field out."""

    def send(user=ada, **fields):
        fields = {"target_num_updates": 3, "aggregation_method": "FedAvg"} | fields
        if "model_id" not in fields:
            fields["model_id"] = str(make_model(user).pk)
        fields = {name: value for name, value in fields.items() if value is not None}
        return as_(user).send("POST", TRAININGS, fields)

    return send


def test_a_training_is_created(create, as_, ada, make_user):
    bob = make_user("bob")

    answer = create(clients=[str(bob.pk)], metric_names=["loss"], options={"local": {"epochs": 2}})

    training = Training.objects.get()
    assert answer.status_code == 201
    assert answer.json() == {"detail": "Training created successfully!", "training_id": str(training.pk)}
    assert answer["Location"].endswith(f"/api/trainings/{training.pk}/")
    shown = as_(ada).get(f"{TRAININGS}{training.pk}/").json()
    assert shown == {
        "id": str(training.pk),
        "state": "I",
        "target_num_updates": 3,
        "last_update": shown["last_update"],
        "uncertainty_method": "NONE",
        "aggregation_method": "FedAvg",
        "options": {"local": {"epochs": 2}},
        "locked": False,
        "model": str(training.model_id),
        "actor": str(ada.pk),
        "participants": [str(bob.pk)],
        "metric_names": ["loss"],
        "reason": "",
        "reason_code": "",
        "explanation": "Not started: 1 participant so far, 3 rounds to go.",
        "paused_at": None,
        "stops_after_round": False,
        "local_models_arrived": 0,
        "local_models_expected": 0,
        "rounds": [],
        "links": shown["links"],
    }


def test_a_training_says_where_to_ask_for_more(create, as_, ada):
    training = create().json()["training_id"]

    links = as_(ada).get(f"{TRAININGS}{training}/").json()["links"]

    where = f"http://testserver{TRAININGS}{training}/"
    assert (
        links.items()
        >= {
            "start": f"{where}start/",
            "clients": f"{where}clients/",
            "models": f"{where}models/",
            "models_latest": f"{where}models/latest/",
        }.items()
    )
    assert as_(ada).get(links["models"]).status_code == 200


# A training whose model comes with it


@pytest.fixture
def create_with_file(as_, ada, tensors_file):
    def send(*, file=None, **fields):
        upload = io.BytesIO(tensors_file(w=[1, 2]) if file is None else file)
        upload.name = "model.safetensors"
        form = {"name": "m", "description": "d", "target_num_updates": 3, "aggregation_method": "FedAvg"}
        form = form | {"model_file": upload} | fields
        return as_(ada).post(TRAININGS, {name: value for name, value in form.items() if value is not None})

    return send


def test_a_training_is_created_with_its_model(create_with_file, as_, ada, make_user):
    bob, cat = make_user("bob"), make_user("cat")

    answer = create_with_file(
        clients=[str(bob.pk), str(cat.pk)],
        metric_names=["loss", "accuracy"],
        options='{"local": {"epochs": 2}}',
    )

    assert answer.status_code == 201
    shown = as_(ada).get(f"{TRAININGS}{answer.json()['training_id']}/").json()
    assert set(shown["participants"]) == {str(bob.pk), str(cat.pk)}
    assert shown["metric_names"] == ["loss", "accuracy"]
    assert shown["options"] == {"local": {"epochs": 2}}
    (model,) = as_(ada).get("/api/models/").json()
    assert (model["id"], model["name"], model["description"]) == (shown["model"], "m", "d")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_lists_in_a_form_may_be_json(create_with_file, make_user, count):
    users = [make_user() for _ in range(count)]

    assert create_with_file(clients=json.dumps([str(user.pk) for user in users])).status_code == 201
    assert Training.objects.get().participants.count() == count


def test_one_client_in_a_form_is_a_list_of_one(create_with_file, ada):
    assert create_with_file(clients=str(ada.pk)).status_code == 201
    assert list(Training.objects.get().participants.all()) == [ada]


@pytest.mark.parametrize("field", ["name", "description", "target_num_updates", "aggregation_method"])
def test_what_is_missing_of_a_form_is_named(create_with_file, field):
    answer = create_with_file(**{field: None})

    assert (answer.status_code, answer.json()) == (400, {field: ["Missing data for required field."]})


def test_a_form_without_a_file_names_a_model(create_with_file, make_model, ada):
    form = {"model_file": None, "name": None, "description": None}
    missing = create_with_file(**form)
    assert missing.json() == {"model_id": ["Missing data for required field."]}

    assert create_with_file(**form, model_id=str(make_model(ada).pk)).status_code == 201


def test_a_form_names_a_model_or_brings_one(create_with_file, make_model, ada):
    answer = create_with_file(model_id=str(make_model(ada).pk))

    assert (answer.status_code, answer.json()) == (400, {"model_id": ["Unknown field."]})


@pytest.mark.parametrize(
    "fields",
    [
        {"file": b"garbage"},
        {"clients": UNKNOWN},
        {"options": "{"},
        {"options": "[]"},
        {"options": '{"exchange": ["nothing.*"]}'},
        {"aggregation_method": "FedMagic"},
        {"uncertainty_method": "MAGIC"},
        {"clients": "[[]]"},
        {"model_file": "text"},
    ],
)
def test_where_one_thing_is_wrong_neither_training_nor_model_is_made(create_with_file, fields):
    assert create_with_file(**fields).status_code == 400
    assert not Training.objects.exists()
    assert not Model.objects.exists()


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
def test_the_body_is_json_whatever_it_says_it_is(as_, ada, make_model, content_type):
    body = {"model_id": str(make_model(ada).pk), "target_num_updates": 1, "aggregation_method": "FedAvg"}

    answer = as_(ada).generic("POST", TRAININGS, json.dumps(body), content_type)

    assert answer.status_code == 201


def test_the_actor_may_take_part(create, ada):
    assert create(clients=[str(ada.pk)]).status_code == 201


def test_a_participant_named_twice_counts_once(create, make_user):
    bob = str(make_user().pk)

    create(clients=[bob, bob.upper()])

    assert Training.objects.get().participants.count() == 1


@pytest.mark.parametrize("field", ["model_id", "target_num_updates", "aggregation_method"])
def test_what_is_missing_is_named(create, field):
    answer = create(**{field: None})

    assert answer.status_code == 400
    assert answer.json() == {field: ["Missing data for required field."]}
    assert answer["X-Error-Code"] == "invalid_input"


def test_an_unknown_field_is_named(create):
    answer = create(traget=3)

    assert answer.status_code == 400
    assert answer.json() == {"traget": ["Unknown field."]}


def test_a_method_that_is_not_there_is_answered_with_those_that_are(create):
    answer = create(aggregation_method="FedMagic")

    assert answer.status_code == 400
    (sentence,) = answer.json()["aggregation_method"]
    assert sentence.startswith("'FedMagic' is no aggregation method; valid ones: ")
    assert set(strategies()) == set(sentence.split(": ")[1].rstrip(".").split(", "))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target_num_updates", 0),
        ("target_num_updates", -1),
        ("target_num_updates", "many"),
        ("target_num_updates", 10**30),
        ("uncertainty_method", "MAGIC"),
        ("metric_names", "loss"),
        ("metric_names", ["x" * 65]),
        ("clients", "everybody"),
        ("clients", [[]]),
        ("options", []),
        ("options", "none"),
        ("options", {"tests": "sometimes"}),
        ("options", {"round_timeout": 0}),
        ("options", {"round_timeout": "nan"}),
        ("options", {"round_timeout": 1e300}),
        ("options", {"round_retries": -1}),
        ("options", {"min_updates": 0}),
        ("options", {"min_updates": None}),
        ("options", {"local": []}),
        ("options", {"aggregation": 1}),
        ("options", {"encoding": "int8"}),
        ("options", {"participants_may_steer": "perhaps"}),
        ("options", {"daisy_chain_period": -1}),
        ("options", {"uncertainty": {"over": "members"}}),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_under_its_field(create, field, value):
    answer = create(**{field: value})

    assert answer.status_code == 400
    assert list(answer.json()) == [field]
    assert not Training.objects.exists()


@pytest.mark.parametrize(
    "option",
    ["privacy"],
)
def test_an_option_that_is_not_there_yet_is_never_silently_ignored(create, option):
    answer = create(options={option: 2})

    assert answer.status_code == 400
    assert answer.json() == {"detail": f"options.{option} is not available yet", "code": "not_available_yet"}
    assert not Training.objects.exists()


@pytest.mark.parametrize("method", ["NONE", "ENSEMBLE", "MC_DROPOUT", "SWAG"])
def test_how_uncertainty_is_to_be_measured_is_kept(create, method):
    create(uncertainty_method=method)

    assert Training.objects.get().uncertainty_method == method


def test_an_option_that_the_method_does_not_have_is_refused(create):
    answer = create(options={"aggregation": {"momentum": 0.9}})

    assert answer.status_code == 400
    sentence = "FedAvg has no option 'momentum'; its options are: "
    assert answer.json()["detail"] == sentence + "clip, rules, scores, screen, server_learning_rate"


def test_unknown_options_come_back_as_they_came_and_are_named(create, as_, ada):
    options = {"daisy": {"chain": [1, None, "\u00fc"]}, "round_timeout": 60}

    answer = create(options=options)

    assert answer.status_code == 201
    assert answer.json()["warnings"] == ["options.daisy has no meaning here; it is kept as it came"]
    assert as_(ada).get(f"{TRAININGS}{answer.json()['training_id']}/").json()["options"] == options


def test_someone_elses_model_is_not_trained(create, make_model):
    answer = create(model_id=str(make_model().pk))

    assert answer.status_code == 403
    assert answer.json()["detail"] == "You do not have permission to perform this action."


@pytest.mark.parametrize("model_id", [UNKNOWN, "x", "1"])
def test_an_unknown_model_is_not_trained(create, model_id):
    answer = create(model_id=model_id)

    assert answer.status_code == 400
    assert answer.json() == {"detail": f"Model {model_id} not found.", "code": "not_found"}


@pytest.mark.parametrize("unknown", [UNKNOWN, "x"])
def test_one_unknown_user_is_enough_to_create_nothing(create, ada, unknown):
    answer = create(clients=[str(ada.pk), unknown])

    assert answer.status_code == 400
    assert answer.json()["detail"] == "Not all provided users were found!"
    assert not Training.objects.exists()


def test_a_model_that_is_used_is_cloned(create, make_model, ada, as_):
    model = make_model(ada)
    first, second = (create(model_id=str(model.pk)).json()["training_id"] for _ in range(2))

    models = [as_(ada).get(f"{TRAININGS}{each}/").json()["model"] for each in (first, second)]

    assert models[0] == str(model.pk)
    assert models[1] != str(model.pk)
    assert as_(ada).get(f"/api/models/{models[1]}/").getvalue() == as_(ada).get(f"/api/models/{model.pk}/").getvalue()
    described = [as_(ada).get(f"/api/models/{each}/metadata/").json() | {"id": ""} for each in models]
    assert described[0] == described[1]


# Participants


def ids(*users):
    return {"clients": [str(user.pk) for user in users]}


@pytest.fixture
def training(make_training):
    return make_training(participants=[])


@pytest.fixture
def clients(training, as_):
    """A function that asks for a change of the participants, as the actor unless it says otherwise."""

    def send(method, body, user=training.actor):
        return as_(user).send(method, f"{TRAININGS}{training.pk}/clients/", body)

    return send


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_users_become_participants(clients, training, ada, method):
    answer = clients(method, ids(ada, ada))

    assert answer.status_code == 202
    assert answer.json() == {"detail": "Users registered as participants!"}
    assert answer["Location"].endswith(f"{TRAININGS}{training.pk}/")
    assert list(training.participants.all()) == [ada]


def test_who_takes_part_already_stays(clients, training, ada):
    clients("PUT", ids(ada))

    assert clients("PUT", ids(ada)).status_code == 202
    assert list(training.participants.all()) == [ada]


def test_users_are_removed(clients, training, ada, make_user):
    clients("PUT", ids(ada))

    answer = clients("DELETE", ids(ada, make_user()))

    assert answer.status_code == 200
    assert answer.json() == {"detail": "Users removed from training participants!"}
    assert not training.participants.exists()


@pytest.mark.parametrize(("method", "status"), [("PUT", 202), ("POST", 202), ("DELETE", 200)])
def test_nobody_is_a_list_of_users_too(clients, method, status):
    assert clients(method, {"clients": []}).status_code == status


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
@pytest.mark.parametrize("body", [{}, None])
def test_the_list_of_users_must_be_there(clients, method, body):
    answer = clients(method, body)

    assert answer.status_code == 400
    assert answer.json() == {"clients": ["Missing data for required field."]}


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_one_unknown_user_is_enough_to_change_nothing(clients, training, ada, method):
    answer = clients(method, {"clients": [str(ada.pk), UNKNOWN]})

    assert answer.status_code == 400
    assert answer.json() == {"detail": "Not all provided users were found!", "code": "unknown_user"}
    assert not training.participants.exists()


def test_what_is_wrong_in_the_list_is_told_by_its_place(clients, ada):
    answer = clients("PUT", {"clients": [str(ada.pk), []]})

    assert answer.status_code == 400
    assert list(answer.json()["clients"]) == ["1"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_the_list_of_users_is_json_whatever_it_says_it_is(as_, training, ada, content_type):
    path = f"{TRAININGS}{training.pk}/clients/"

    assert as_(training.actor).generic("PUT", path, json.dumps(ids(ada)), content_type).status_code == 202


# Who may steer


@pytest.fixture
def steering(make_training, as_, settings, make_user):
    """A function: what a participant gets for starting, adding and removing others, and leaving."""

    def ask(options, *, by_default=True):
        settings.PARTICIPANTS_MAY_STEER = by_default
        training = make_training(options=options)
        participant, other = training.participants.all()
        path = f"{TRAININGS}{training.pk}/"
        send = as_(participant).send
        return {
            "add": send("PUT", path + "clients/", ids(make_user())).status_code,
            "start": send("POST", path + "start/").status_code,
            "remove": send("DELETE", path + "clients/", ids(other)).status_code,
            "leave": send("DELETE", path + "clients/", ids(participant)).status_code,
        }

    return ask


MAY = {"add": 202, "start": 202, "remove": 200, "leave": 200}
MAY_ONLY_LEAVE = {"add": 403, "start": 403, "remove": 403, "leave": 200}


@pytest.mark.parametrize(
    ("options", "by_default", "answers"),
    [
        ({}, True, MAY),
        ({}, False, MAY_ONLY_LEAVE),
        ({"participants_may_steer": True}, False, MAY),
        ({"participants_may_steer": False}, True, MAY_ONLY_LEAVE),
    ],
)
def test_participants_steer_as_the_training_or_else_the_hub_says(steering, options, by_default, answers):
    assert steering(options, by_default=by_default) == answers


# Starting and removing


def test_a_training_starts(make_scene, as_):
    scene = make_scene(started=False)

    answer = as_(scene.actor).send("POST", f"{TRAININGS}{scene.id}/start/")

    assert answer.status_code == 202
    assert answer.json() == {"detail": "Training started!"}
    assert scene.state == "O"
    assert scene.round_states == ["OPEN"]


@pytest.mark.parametrize("body", ["not json", "{", "[]", "\0"])
def test_what_comes_with_a_start_is_not_read(make_scene, as_, body):
    scene = make_scene(started=False)

    answer = as_(scene.actor).generic("POST", f"{TRAININGS}{scene.id}/start/", body, "application/json")

    assert answer.status_code == 202


def test_a_training_starts_once(make_scene, as_):
    scene = make_scene()

    answer = as_(scene.actor).send("POST", f"{TRAININGS}{scene.id}/start/")

    assert answer.status_code == 400
    assert answer.json() == {"detail": f"Training {scene.id} is not in state INITIAL!", "code": "wrong_state"}
    assert scene.round_states == ["OPEN"]


def test_a_training_does_not_start_without_participants(training, as_):
    answer = as_(training.actor).send("POST", f"{TRAININGS}{training.pk}/start/")

    assert answer.status_code == 400
    assert answer.json() == {"detail": "At least one participant must be registered!", "code": "no_participants"}


@pytest.mark.parametrize("started", [False, True])
def test_a_training_is_removed_in_any_state(make_scene, as_, started, work):
    scene = make_scene(started=started)

    answer = as_(scene.actor).delete(f"{TRAININGS}{scene.id}/")

    assert answer.status_code == 200
    assert answer.json() == {"detail": "Training removed!"}
    assert as_(scene.actor).get(f"{TRAININGS}{scene.id}/").status_code == 404
    assert as_(scene.actor).get(f"/api/models/{scene.model_id}/").status_code == 200
    work()
    assert scene.asked_of(scene.participants[0]) == []


def test_a_model_can_be_trained_again_after_its_training_is_removed(make_scene, as_, create):
    scene = make_scene()
    as_(scene.actor).delete(f"{TRAININGS}{scene.id}/")

    answer = create(scene.actor, model_id=str(scene.model_id))

    assert Training.objects.get(pk=answer.json()["training_id"]).model_id == scene.model_id


def test_only_the_actor_removes_a_training(make_scene, as_):
    scene = make_scene()

    answer = as_(scene.participants[0]).delete(f"{TRAININGS}{scene.id}/")

    assert answer.status_code == 403
    assert answer.json()["detail"] == "You are not the owner the training."
