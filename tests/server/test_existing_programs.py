"""What programs written for the seed's API do, call by call, with the very bytes that `requests` and curl send."""

from __future__ import annotations

import base64
import io
import itertools
import uuid

import pytest
import requests
import torch
from django.test import Client
from torch.nn.utils import parameters_to_vector

from folkmoot.server.registry.services import MAX_METRIC_BYTES

pytestmark = [
    pytest.mark.django_db,
    # TorchScript is what the shipped client sends.
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]

PASSWORD = "correct horse battery"
HUB = "http://testserver"


class Program:
    """A user's program: name and password on every request, and nothing that is remembered from the one before."""

    def __init__(self, username, **fields):
        self.username = username
        answer = send("POST", "/api/users/", json={"username": username, "password": PASSWORD, **fields})
        assert answer.status_code == 201, answer.content
        self.id = answer.json()["id"]

    def __call__(self, method, path, **request):
        return send(method, path, auth=(self.username, PASSWORD), **request)

    def told(self):
        """All that this user was ever told."""
        notifications = self("GET", "/api/notifications/?after=0").json()["notifications"]
        return [(each["notification_type"], each["body"]) for each in notifications]

    def asked(self, kind):
        """The body of the newest notification of the type."""
        return [body for told, body in self.told() if told == kind][-1]


def send(method, path, **request):
    """What the hub answers to the request that `requests` would send."""
    prepared = requests.Request(method, HUB + path, **request).prepare()
    headers = {name: value for name, value in prepared.headers.items() if name == "Authorization"}
    return Client(raise_request_exception=False).generic(
        method, prepared.path_url, prepared.body or b"", prepared.headers.get("Content-Type", ""), headers=headers
    )


def network(seed):
    torch.manual_seed(seed)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, kernel_size=5),
        torch.nn.Dropout2d(),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(4),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.3),
        torch.nn.Linear(72, 10),
        torch.nn.LogSoftmax(dim=1),
    )
    return torch.jit.script(layers)


def file_of(model):
    file = io.BytesIO()
    torch.jit.save(model, file)
    return file.getvalue()


def loaded(answer):
    assert answer.status_code == 200
    return torch.jit.load(io.BytesIO(answer.getvalue()))


def vector(model):
    return parameters_to_vector(model.parameters()).detach()


@pytest.fixture
def actor():
    return Program("actor", actor=True)


@pytest.fixture
def clients():
    return [Program(f"client-0{number}", client=True) for number in (1, 2)]


@pytest.fixture
def model_id(actor):
    data = {"name": "mnist", "description": "digits", "input_shape": ["None", "1", "28", "28"]}
    answer = actor("POST", "/api/models/", data=data, files={"model_file": ("model.pt", file_of(network(0)))})
    assert answer.status_code == 201, answer.content
    return answer.json()["model_id"]


@pytest.fixture
def start(actor, model_id, work):
    """A function: create a training of the model and open its first round."""

    def begin(participants, *, method="FedAvg", rounds=1, **fields):
        body = {
            "model_id": model_id,
            "target_num_updates": rounds,
            "aggregation_method": method,
            "metric_names": ["accuracy"],
            "clients": [each.id for each in participants],
            **fields,
        }
        training_id = actor("POST", "/api/trainings/", json=body).json()["training_id"]
        assert actor("POST", f"/api/trainings/{training_id}/start/").status_code == 202
        work()
        return f"/api/trainings/{training_id}/"

    return begin


def upload_update(client, *, seed):
    """As the shipped client does when it is told to train."""
    asked = client.asked("UPDATE_ROUND_START")
    data = {"round": asked["round"], "sample_size": 100, "owner": client.id, "name": "update", "description": "local"}
    data |= {"metric_names": ["loss"], "metric_values": [0.25]}
    files = {"model_file": ("model.pt", file_of(network(seed)), "application/octet-stream")}
    return client("POST", f"/api/models/{asked['global_model_uuid']}/", data=data, files=files)


def upload_metrics(client):
    """As the shipped client does when it is told to test."""
    form = {"metric_names": ["accuracy", "loss"], "metric_values": [0.5, 0.25]}
    return client("POST", f"/api/models/{client.asked('MODEL_TEST_ROUND')['global_model_uuid']}/metrics/", data=form)


# The shipped client.


def test_the_shipped_client_takes_part_from_beginning_to_end(actor, clients, start, work):
    training = start(clients, rounds=2)
    for number in range(2):
        for client in clients:
            asked = client.asked("UPDATE_ROUND_START")
            assert asked["round"] == number
            loaded(client("GET", f"/api/models/{asked['global_model_uuid']}/"))
            answer = upload_update(client, seed=number)
            assert (answer.status_code, answer.json()["detail"]) == (201, "Model Update Accepted")
        work()
        for client in clients:
            answer = upload_metrics(client)
            assert (answer.status_code, answer.json()["detail"]) == (201, "Model Metrics Upload Accepted")
        work()
    assert actor("GET", training).json()["state"] == "C"
    assert [kind for kind, _ in clients[0].told()][-1] == "TRAINING_FINISHED"


def test_nothing_but_name_and_password_is_needed_or_handed_out(clients):
    answer = clients[0]("GET", "/api/users/myself/")
    assert answer.status_code == 200
    assert not answer.cookies


def test_a_torchscript_model_with_convolutions_and_dropout_comes_back_trained_and_runs(
    actor, model_id, clients, start, work
):
    start(clients, options={"tests": "never"})
    for client, seed in zip(clients, (1, 2), strict=True):
        upload_update(client, seed=seed)
    work()
    trained = loaded(actor("GET", f"/api/models/{model_id}/"))
    mean = torch.stack([vector(network(seed)).double() for seed in (1, 2)]).mean(0)
    assert torch.allclose(vector(trained).double(), mean, atol=1e-6)
    assert trained.eval()(torch.zeros(3, 1, 28, 28)).shape == (3, 10)
    # Dropout is still there: in training, the same images give something else each time.
    trained.train()
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(trained(images), trained(images))


@pytest.mark.parametrize("whose", ["own", "other", "nonsense", ""])
def test_the_owner_field_is_taken_and_the_sender_owns_the_update(actor, clients, start, whose):
    training = start(clients)
    first, second = clients
    owner = {"own": first.id, "other": second.id}.get(whose, whose)
    asked = first.asked("UPDATE_ROUND_START")
    data = {"round": asked["round"], "sample_size": 100, "owner": owner}
    path = f"/api/models/{asked['global_model_uuid']}/"
    assert first("POST", path, data=data, files={"model_file": file_of(network(1))}).status_code == 201
    (local,) = [each for each in actor("GET", f"{training}models/").json() if "base_model" in each]
    assert local["owner"] == first.id


def test_in_daisy_chaining_the_announced_local_model_is_downloaded_and_uploaded_to(actor, clients, start, work):
    training = start(clients, method="FedDC", options={"daisy_chain_period": 2, "tests": "never"})
    update_ids = [
        upload_update(client, seed=seed).json()["update_id"] for client, seed in zip(clients, (1, 2), strict=True)
    ]
    work()
    for client, others_id, others_seed in zip(clients, reversed(update_ids), (2, 1), strict=True):
        asked = client.asked("UPDATE_ROUND_START")
        assert (asked["round"], asked["global_model_uuid"]) == (1, others_id)
        given = loaded(client("GET", f"/api/models/{others_id}/"))
        assert torch.equal(vector(given), vector(network(others_seed)))
        assert upload_update(client, seed=3).status_code == 201
    work()
    assert actor("GET", training).json()["state"] == "C"


def test_metrics_come_urlencoded_when_there_is_no_file(actor, model_id):
    form = {"metric_names": ["accuracy", "loss"], "metric_values": [0.5, 0.25]}
    prepared = requests.Request("POST", HUB, data=form).prepare()
    assert prepared.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert actor("POST", f"/api/models/{model_id}/metrics/", data=form).status_code == 201
    shown = actor("GET", f"/api/models/{model_id}/metrics/").json()
    assert {each["key"]: each["value_float"] for each in shown} == {"accuracy": 0.5, "loss": 0.25}


def test_metrics_come_as_multipart_when_a_value_is_a_file(actor, model_id):
    answer = actor(
        "POST",
        f"/api/models/{model_id}/metrics/",
        data={"metric_names": ["confusion matrix"]},
        files={"metric_values": ("matrix.bin", b"\x00\x01\xff")},
    )
    assert answer.status_code == 201, answer.content
    (shown,) = actor("GET", f"/api/models/{model_id}/metrics/").json()
    assert shown["value_float"] is None
    assert base64.b64decode(shown["value_binary"]) == b"\x00\x01\xff"


def test_metrics_come_as_multipart_beside_a_file_that_is_no_metric(actor, model_id):
    form = {"metric_names": ["accuracy"], "metric_values": [0.5]}
    answer = actor("POST", f"/api/models/{model_id}/metrics/", data=form, files={"log": ("log.txt", b"epoch 1")})
    assert answer.status_code == 201
    (shown,) = actor("GET", f"/api/models/{model_id}/metrics/").json()
    assert shown["value_float"] == 0.5


def test_a_file_that_is_too_large_for_a_metric_is_refused(actor, model_id):
    answer = actor(
        "POST",
        f"/api/models/{model_id}/metrics/",
        data={"metric_names": ["weights"]},
        files={"metric_values": ("weights.bin", bytes(MAX_METRIC_BYTES + 1))},
    )
    assert answer.status_code == 400
    assert f"at most {MAX_METRIC_BYTES:,}" in answer.json()["detail"]


def test_metrics_come_as_multipart_with_an_update(actor, model_id, clients, start):
    start(clients)
    assert upload_update(clients[0], seed=1).status_code == 201
    (shown,) = actor("GET", f"/api/models/{model_id}/metrics/").json()
    assert (shown["key"], shown["value_float"], shown["reporter"]) == ("loss", 0.25, clients[0].id)


# The shipped page.


def test_metrics_are_found_without_the_slash_too(actor, model_id):
    actor("POST", f"/api/models/{model_id}/metrics/", data={"metric_names": ["a"], "metric_values": [1]})
    moved = actor("GET", f"/api/models/{model_id}/metrics")
    assert moved.status_code == 301
    # On the same host, so that a browser sends the credentials there, too.
    assert moved.headers["Location"] == f"/api/models/{model_id}/metrics/"
    assert len(actor("GET", moved.headers["Location"]).json()) == 1


@pytest.mark.parametrize("path", ["users/", "users/groups/", "users/trainings/", "models/", "trainings/"])
def test_lists_come_whole_as_plain_arrays(actor, clients, model_id, start, path):
    start(clients)
    actor("POST", "/api/groups/", json={"name": "all of us"})
    answer = actor("GET", f"/api/{path}")
    assert answer.status_code == 200
    assert isinstance(answer.json(), list)
    assert answer.json()


def test_a_list_has_no_end_before_its_end(actor, model_id):
    names = [str(number) for number in range(600)]
    for _ in range(2):
        actor("POST", f"/api/models/{model_id}/metrics/", data={"metric_names": names, "metric_values": names})
    assert len(actor("GET", f"/api/models/{model_id}/metrics/").json()) == 1200


def test_a_training_that_nobody_pauses_or_stops_shows_only_states_that_the_page_knows(
    actor, clients, model_id, start, work
):
    body = {"model_id": model_id, "target_num_updates": 1, "aggregation_method": "FedAvg"}
    waiting = actor("POST", "/api/trainings/", json=body).json()["training_id"]
    seen = [actor("GET", f"/api/trainings/{waiting}/").json()["state"]]
    training = start(clients)
    seen.append(actor("GET", training).json()["state"])
    for client in clients:
        upload_update(client, seed=1)
        seen.append(actor("GET", training).json()["state"])
    work()
    seen.append(actor("GET", training).json()["state"])
    for client in clients:
        upload_metrics(client)
    work()
    seen.append(actor("GET", training).json()["state"])
    assert [state for state, _ in itertools.groupby(seen)] == ["I", "O", "C"]


def test_a_training_that_cannot_go_on_is_in_error(actor, clients, start, work):
    training = start(clients)
    actor("DELETE", f"{training}clients/", json={"clients": [client.id for client in clients]})
    work()
    assert actor("GET", training).json()["state"] == "E"


# The example's scripts.


@pytest.mark.parametrize("kind", ["json", "data"])
def test_participants_register_with_the_name_of_a_container(kind):
    fields = {"username": "client-01", "password": PASSWORD, "message_endpoint": "http://client-01:8101/"}
    fields |= {"first_name": "", "last_name": "", "email": "client@example.com", "actor": False, "client": True}
    answer = send("POST", "/api/users/", **{kind: fields})
    assert answer.status_code == 201
    user = answer.json()
    assert user["message_endpoint"] == "http://client-01:8101/"
    assert (user["actor"], user["client"]) == (False, True)
    assert uuid.UUID(user["id"])
    assert len(user["token"]) == 40


def test_curl_uploads_a_model_with_a_free_dimension(actor):
    boundary = "------------------------d74496d66958873e"
    fields = [
        ("name", "mnist"),
        ("description", "digits"),
        *(("input_shape", each) for each in ("None", "1", "28", "28")),
    ]
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields
    ]
    file = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="model_file"; filename="model.pt"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = "".join([*parts, file]).encode() + file_of(network(0)) + f"\r\n--{boundary}--\r\n".encode()
    answer = actor(
        "POST", "/api/models/", data=body, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    assert answer.status_code == 201, answer.content
    assert answer.json()["detail"] == "Model Upload Accepted"
    (shown,) = actor("GET", "/api/models/").json()
    assert shown["id"] == answer.json()["model_id"]
    assert shown["input_shape"] == [None, 1, 28, 28]


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "text/plain", None])
def test_trainings_are_created_with_mc_dropout_whatever_curl_says_of_the_body(actor, clients, model_id, content_type):
    """curl -d says that it sends a form."""
    ids = ", ".join(f'"{client.id}"' for client in clients)
    body = f"""{{
        "model_id": "{model_id}", "target_num_updates": 3, "aggregation_method": "FedAvg",
        "uncertainty_method": "MC_DROPOUT", "metric_names": ["accuracy"],
        "options": {{"uncertainty": {{"N": 10, "softmax": false}}}}, "clients": [{ids}]
    }}"""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = actor("POST", "/api/trainings/", data=body.encode(), headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (201, "Training created successfully!")
    shown = actor("GET", f"/api/trainings/{answer.json()['training_id']}/").json()
    assert shown["uncertainty_method"] == "MC_DROPOUT"
    assert shown["options"] == {"uncertainty": {"N": 10, "softmax": False}}
    assert set(shown["participants"]) == {client.id for client in clients}


def test_the_actor_takes_part_too(actor, clients, start, work):
    training = start([actor, *clients], uncertainty_method="MC_DROPOUT")
    for each in (actor, *clients):
        assert upload_update(each, seed=1).status_code == 201
    work()
    for each in (actor, *clients):
        assert upload_metrics(each).status_code == 201
    work()
    assert actor("GET", training).json()["state"] == "C"
    expected = ["TRAINING_START", "UPDATE_ROUND_START", "MODEL_TEST_ROUND", "TRAINING_FINISHED"]
    for each in (actor, *clients):
        assert [kind for kind, _ in each.told()] == expected


def test_who_is_in_a_container_that_this_hub_cannot_reach_may_ask(actor, start, work):
    away = Program("client-01", client=True, message_endpoint="http://client-01:8101/")
    start([away])
    assert upload_update(away, seed=1).status_code == 201
