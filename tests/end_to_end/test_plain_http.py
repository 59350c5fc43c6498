"""The participant of examples/plain_http, which knows nothing of our client, against a real hub.

What it is told, over push and over long poll; and what it or others do wrong, after which the training goes on.
"""

from __future__ import annotations

import io
import json
import re
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue

import pytest
import torch
from harness import at_once, wait_until
from torch.nn.utils import parameters_to_vector

EXAMPLE = Path(__file__).parents[2] / "examples/plain_http"
sys.path.insert(0, str(EXAMPLE))

from digits import EPOCHS, accuracy, from_bytes, moments, new_model, probabilities, split, to_bytes  # noqa: E402
from participant import Participant  # noqa: E402
from rest import Hub, Refused  # noqa: E402
from run import alone, create_training, new_participant, new_user, run_training  # noqa: E402

# TorchScript is what existing participants send.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

SHARES, HELD_OUT = split(3)
# Where nobody asks how good the models are.
SMALL_SHARES = [share.where(torch.arange(count)) for share, count in zip(SHARES, (16, 32, 48), strict=True)]

TESTED_EACH_ROUND = [
    ("TRAINING_START", None),
    ("UPDATE_ROUND_START", 0),
    ("MODEL_TEST_ROUND", 1),
    ("UPDATE_ROUND_START", 1),
    ("MODEL_TEST_ROUND", 2),
    ("TRAINING_FINISHED", None),
]
CHAINED = [
    ("TRAINING_START", None),
    ("UPDATE_ROUND_START", 0),
    ("UPDATE_ROUND_START", 1),
    ("UPDATE_ROUND_START", 2),
    ("UPDATE_ROUND_START", 3),
    ("MODEL_TEST_ROUND", 4),
    ("TRAINING_FINISHED", None),
]
WITH_MOMENTS = [
    ("TRAINING_START", None),
    ("UPDATE_ROUND_START", 0),
    ("SWAG_ROUND_START", 1),
    ("MODEL_TEST_ROUND", 1),
    ("UPDATE_ROUND_START", 1),
    ("SWAG_ROUND_START", 2),
    ("MODEL_TEST_ROUND", 2),
    ("TRAINING_FINISHED", None),
]
ONE_ROUND = [*TESTED_EACH_ROUND[:3], TESTED_EACH_ROUND[-1]]
SEQUENCES = {"FedAvg": TESTED_EACH_ROUND, "FedProx": TESTED_EACH_ROUND, "FedDC": CHAINED, "SWAG": WITH_MOMENTS}


def told(participant):
    return [(each["notification_type"], each["body"].get("round")) for each in participant.told]


def announced(participant, kind):
    """The models that the participant was to work on, in order."""
    return [each["body"]["global_model_uuid"] for each in participant.told if each["notification_type"] == kind]


def types_told(user):
    """What a user who only asks afterwards was ever told."""
    notifications = user.call("GET", "notifications/", params={"after": 0}).json()["notifications"]
    return [each["notification_type"] for each in notifications]


def downloaded(user, model_id):
    return from_bytes(user.download_model(model_id))


@dataclass
class Run:
    """A training that was driven to its end: one of the three methods, or FedAvg with SWAG."""

    kind: str
    actor: Hub
    participants: list[Participant]
    training: dict

    @property
    def model(self):
        return self.training["model"]


@pytest.fixture(scope="module", params=[False, True], ids=["push", "long poll"])
def poll(request):
    return request.param


@pytest.fixture(scope="module", params=SEQUENCES)
def run(request, shared_world, poll):
    """A training of each kind over push, and one over long poll; and those who took part in it."""
    url = shared_world.server.url
    participants = [new_participant(url, share, poll=poll) for share in SHARES]
    actor, _ = new_user(url, "actor")
    method, uncertainty = ("FedAvg", "SWAG") if request.param == "SWAG" else (request.param, "NONE")
    training_id = create_training(actor, participants, method=method, rounds=2, uncertainty=uncertainty)
    return Run(request.param, actor, participants, run_training(actor, training_id, participants))


def test_every_participant_is_told_exactly_this(run):
    for participant in run.participants:
        assert told(participant) == SEQUENCES[run.kind]


def test_every_notification_says_which_training_and_model_it_is_about(run):
    for notification in [each for participant in run.participants for each in participant.told]:
        assert notification.keys() >= {"notification_type", "training_uuid", "body"}
        assert notification["training_uuid"] == run.training["id"]
        if notification["notification_type"] != "UPDATE_ROUND_START":
            assert notification["body"]["global_model_uuid"] == run.model


def test_the_global_model_is_trained_at_the_beginning_and_anothers_while_models_wander(run):
    for participant in run.participants:
        asked = announced(participant, "UPDATE_ROUND_START")
        if run.kind != "FedDC":
            assert asked == [run.model] * 2
            continue
        assert asked[0::2] == [run.model] * 2
        for number in (1, 3):
            others = {other.sent[number - 1] for other in run.participants if other is not participant}
            assert asked[number] in others


def test_the_actor_hears_of_the_end_alone(run):
    assert types_told(run.actor) == ["TRAINING_FINISHED"]


def test_the_training_is_completed_with_all_its_rounds_and_participants(run):
    rounds = len(announced(run.participants[0], "UPDATE_ROUND_START"))
    assert run.training["state"] == "C"
    assert [each["state"] for each in run.training["rounds"]] == ["CLOSED"] * rounds
    assert set(run.training["participants"]) == {participant.id for participant in run.participants}
    (model,) = run.actor.call("GET", "models/").json()
    assert (model["id"], model["round"], model["input_shape"]) == (run.model, rounds, [None, 1, 8, 8])


def test_everybodys_metrics_are_kept_of_every_test(run):
    metrics = run.actor.call("GET", f"models/{run.model}/metrics/").json()
    tests = [step for kind, step in SEQUENCES[run.kind] if kind == "MODEL_TEST_ROUND"]
    expected = sorted((step, participant.id) for step in tests for participant in run.participants)
    assert sorted((each["step"], each["reporter"]) for each in metrics if each["key"] == "accuracy") == expected


def test_together_they_are_better_than_each_alone(run):
    together = accuracy(probabilities(downloaded(run.actor, run.model), HELD_OUT), HELD_OUT)
    assert together > best_alone(EPOCHS * len(run.training["rounds"])) + 0.05


@cache
def best_alone(epochs):
    return max(alone(share, HELD_OUT, epochs=epochs) for share in SHARES)


@pytest.mark.parametrize("run", ["SWAG"], indirect=True)
def test_moments_are_the_mean_of_everybodys_by_the_number_of_their_digits(run):
    weights = torch.tensor([len(share) for share in SHARES], dtype=torch.float64)
    theirs = [moments(downloaded(run.actor, run.model), share) for share in SHARES]
    for part, of_each in zip(("first_moment", "second_moment"), zip(*theirs, strict=True), strict=True):
        file = run.actor.call("GET", f"models/{run.model}/", params={"part": part}).content
        merged = torch.load(io.BytesIO(file), weights_only=True)
        expected = (weights[:, None] * torch.stack(of_each).double()).sum(0) / weights.sum()
        assert torch.allclose(merged.double(), expected, atol=1e-5)


def test_nothing_of_folkmoot_is_imported_by_the_example():
    for file in EXAMPLE.glob("*.py"):
        assert not re.search(r"^\s*(import|from) folkmoot", file.read_text(), re.MULTILINE)


def test_trained_models_become_one_that_is_their_mean(hub):
    participants = [new_participant(hub.server.url, share, poll=True) for share in SHARES]
    actor, _ = new_user(hub.server.url, "actor")
    members = []
    for seed in (0, 1):
        training_id = create_training(actor, participants, method="FedAvg", rounds=1, uncertainty="ENSEMBLE", seed=seed)
        members.append(run_training(actor, training_id, participants)["model"])
    mean_model = actor.upload_mean_model("mean", members)

    assert [told(each) for each in participants] == [ONE_ROUND * 2] * 3
    (shown,) = [each for each in actor.call("GET", "models/").json() if each["id"] == mean_model]
    assert shown["models"] == members
    with pytest.raises(Refused, match=f"(?s)409.*{members[0]}.*{members[1]}"):
        actor.download_model(mean_model)
    mean = torch.stack([probabilities(downloaded(actor, member), HELD_OUT) for member in members]).mean(0)
    assert accuracy(mean, HELD_OUT) > best_alone(EPOCHS)


@dataclass
class Scene:
    """A training whose first round is open, and participants that do only what the test has them do."""

    actor: Hub
    participants: list[Participant]
    training_id: str
    model_id: str

    def round_state(self, number=0):
        rounds = self.actor.training(self.training_id)["rounds"]
        return rounds[number]["state"] if number < len(rounds) else None

    def wait_for(self, state, *, number=0):
        wait_until(lambda: self.round_state(number) == state, f"round {number} to be {state}")

    def wait_for_end(self):
        wait_until(lambda: self.actor.training(self.training_id)["state"] != "O", "the training to end")
        return self.actor.training(self.training_id)

    def train(self, number=0):
        for participant in self.participants:
            participant.train(self.model_id, number)
        self.wait_for("TESTING", number=number)

    def test(self):
        for participant in self.participants:
            participant.test(self.model_id)


@pytest.fixture
def scene(hub):
    def start(*, rounds=1):
        participants = [new_participant(hub.server.url, share, poll=True) for share in SMALL_SHARES]
        actor, _ = new_user(hub.server.url, "actor")
        training_id = create_training(actor, participants, method="FedAvg", rounds=rounds)
        actor.start(training_id)
        return Scene(actor, participants, training_id, actor.training(training_id)["model"])

    return start


def test_three_updates_at_the_same_instant_make_one_model(scene):
    scene = scene()
    updates = [new_model(seed) for seed in (1, 2, 3)]

    def upload(participant, update):
        return lambda: participant.hub.upload_update(
            scene.model_id, 0, len(participant.digits), to_bytes(update), participant.id, 0.5
        )

    at_once(*map(upload, scene.participants, updates))
    scene.wait_for("TESTING")
    at_once(*[lambda each=each: each.test(scene.model_id) for each in scene.participants])

    assert scene.wait_for_end()["state"] == "C"
    weights = torch.tensor([len(share) for share in SMALL_SHARES], dtype=torch.float64)
    vectors = torch.stack([parameters_to_vector(update.parameters()).detach().double() for update in updates])
    mean = (weights[:, None] * vectors).sum(0) / weights.sum()
    made = parameters_to_vector(downloaded(scene.actor, scene.model_id).parameters()).detach()
    assert torch.allclose(made, mean.float(), atol=1e-6)


def test_a_test_metric_sent_twice_counts_once_and_the_round_waits_for_the_others(scene):
    scene = scene(rounds=2)
    first, second, third = scene.participants
    scene.train()
    first.hub.upload_metrics(scene.model_id, {"accuracy": 0.1})
    first.hub.upload_metrics(scene.model_id, {"accuracy": 0.2})
    second.test(scene.model_id)
    assert scene.round_state() == "TESTING"
    third.test(scene.model_id)
    scene.wait_for("OPEN", number=1)
    tests = scene.actor.training(scene.training_id)["rounds"][0]["metrics"]["test"]
    assert tests[first.id] == {"accuracy": 0.2}
    scene.train(number=1)
    scene.test()
    assert scene.wait_for_end()["state"] == "C"


def test_a_strangers_metrics_are_refused_and_the_round_waits_for_the_participants(hub, scene):
    scene = scene()
    stranger, _ = new_user(hub.server.url, "client")
    scene.train()
    with pytest.raises(Refused) as refused:
        stranger.upload_metrics(scene.model_id, {"accuracy": 1.0})
    assert refused.value.status == 403
    assert scene.round_state() == "TESTING"
    scene.test()
    assert scene.wait_for_end()["state"] == "C"


def test_an_update_that_does_not_fit_is_refused_by_name_and_the_right_one_is_taken(scene):
    scene = scene()
    first = scene.participants[0]
    wrong = to_bytes(torch.jit.script(torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3))))
    with pytest.raises(Refused, match="does not fit the model") as refused:
        first.hub.upload_update(scene.model_id, 0, len(first.digits), wrong, first.id, 0.5)
    assert refused.value.status == 400
    scene.train()
    scene.test()
    assert scene.wait_for_end()["state"] == "C"


class Choosy:
    """An endpoint that answers some types with an error; what it accepts is what its participant hears of."""

    def __init__(self, rejected):
        accepted, self.received = Queue(), []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler):  # noqa: N805
                notification = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
                self.received.append(notification["notification_type"])
                if notification["notification_type"] == rejected:
                    handler.send_error(500)
                    return
                accepted.put(notification)
                handler.send_response(204)
                handler.end_headers()

            def log_message(handler, *_):  # noqa: N805
                pass

        self._accepted = accepted
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __iter__(self):
        while True:
            yield self._accepted.get()


@pytest.fixture
def joined_by_a_choosy_one(hub):
    """Run a training of two rounds with two participants and one whose endpoint rejects something."""
    servers = []

    def train(rejected):
        choosy = Choosy(rejected)
        servers.append(choosy.server)
        user, user_id = new_user(hub.server.url, "client", message_endpoint=choosy.endpoint)
        others = [new_participant(hub.server.url, share, poll=False) for share in SMALL_SHARES[:2]]
        participants = [*others, Participant(user, user_id, SMALL_SHARES[2], choosy)]
        actor, _ = new_user(hub.server.url, "actor")
        training_id = create_training(actor, participants, method="FedAvg", rounds=2)
        training = run_training(actor, training_id, participants)
        assert [told(other) for other in others] == [TESTED_EACH_ROUND] * 2
        return training, choosy, user_id

    yield train
    for server in servers:
        server.shutdown()
        server.server_close()


def test_who_rejects_the_start_of_a_round_is_removed_and_the_others_go_on(joined_by_a_choosy_one):
    training, choosy, rejecting = joined_by_a_choosy_one("UPDATE_ROUND_START")
    assert training["state"] == "C"
    assert len(training["participants"]) == 2
    assert rejecting not in training["participants"]
    assert choosy.received == ["TRAINING_START", "UPDATE_ROUND_START", "CLIENT_REMOVED"]


def test_who_rejects_a_test_is_missing_in_it_and_trains_on(joined_by_a_choosy_one):
    training, choosy, rejecting = joined_by_a_choosy_one("MODEL_TEST_ROUND")
    assert training["state"] == "C"
    assert rejecting in training["participants"]
    assert [rejecting in each["arrived"] for each in training["rounds"]] == [True, True]
    assert [rejecting in each["metrics"]["test"] for each in training["rounds"]] == [False, False]
    assert choosy.received == [kind for kind, _ in TESTED_EACH_ROUND]


def test_rejecting_what_asks_for_nothing_changes_nothing(joined_by_a_choosy_one):
    training, choosy, rejecting = joined_by_a_choosy_one("TRAINING_START")
    assert [rejecting in each["metrics"]["test"] for each in training["rounds"]] == [True, True]
    assert choosy.received == [kind for kind, _ in TESTED_EACH_ROUND]


@pytest.fixture
def dead_endpoints():
    """One where nobody listens, and one where nobody answers."""
    with socket.socket() as deaf, socket.socket() as mute:
        for each in (deaf, mute):
            each.bind(("127.0.0.1", 0))
        mute.listen()
        yield [f"http://127.0.0.1:{each.getsockname()[1]}/" for each in (deaf, mute)]


def test_whose_endpoint_is_dead_is_missing_and_the_others_go_on(hub, dead_endpoints):
    dead = [new_user(hub.server.url, "client", message_endpoint=each) for each in dead_endpoints]
    living = [new_participant(hub.server.url, share, poll=False) for share in SMALL_SHARES[:2]]
    actor, _ = new_user(hub.server.url, "actor")
    # Long enough for the living to train, however busy the machine is.
    training_id = create_training(actor, living, method="FedAvg", rounds=1, round_timeout=10, min_updates=2)
    ids = [user_id for _, user_id in dead]
    actor.call("PUT", f"trainings/{training_id}/clients/", json={"clients": ids})
    training = run_training(actor, training_id, living)
    assert [told(each) for each in living] == [ONE_ROUND] * 2
    assert set(training["rounds"][0]["arrived"]) == {each.id for each in living}
    # They are no worse off than before: still there, and told of everything when they ask.
    assert set(ids) < set(training["participants"])
    for user, _ in dead:
        assert types_told(user) == [kind for kind, _ in ONE_ROUND]


def test_nobody_waits_until_the_deadline_for_a_dead_endpoint(hub, dead_endpoints):
    _, dead = new_user(hub.server.url, "client", message_endpoint=dead_endpoints[0])
    living = [new_participant(hub.server.url, share, poll=False) for share in SMALL_SHARES[:2]]
    actor, _ = new_user(hub.server.url, "actor")
    training_id = create_training(actor, living, method="FedAvg", rounds=1, round_timeout=86_400)
    actor.call("PUT", f"trainings/{training_id}/clients/", json={"clients": [dead]})
    training = run_training(actor, training_id, living)
    assert [told(each) for each in living] == [ONE_ROUND] * 2
    assert set(training["rounds"][0]["arrived"]) == {each.id for each in living}
    assert dead in training["participants"]


def test_the_command_trains_models_and_their_mean():
    command = [sys.executable, EXAMPLE / "run.py", "--rounds", "1", "--models", "2"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^Model \S+ is the mean of \S+, \S+\.$", said, re.MULTILINE)
    together, *each = map(float, re.findall(r"\b[01]\.\d{3}\b", said))
    assert together > max(each)


def test_the_readmes_commands_are_understood():
    readme = (EXAMPLE / "README.md").read_text()
    help_text = subprocess.run(
        [sys.executable, EXAMPLE / "run.py", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert set(re.findall(r"--[a-z]+", readme)) <= set(re.findall(r"--[a-z]+", help_text))
