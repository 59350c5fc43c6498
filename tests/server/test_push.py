"""Notifications are pushed to participants with an endpoint of their own: a real listener on this machine."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from folkmoot.server.notifications import push
from folkmoot.server.notifications.models import Push
from folkmoot.server.notifications.push import PUSH_FAILED
from folkmoot.server.outbox.events import MAX_ATTEMPTS, handle_next_event
from folkmoot.server.outbox.models import Event, Lane

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("embedded_hub")]


class Listener(ThreadingHTTPServer):
    """Accepts everything, but for the types that it is told to answer otherwise."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/hook?of=ada"
        self.answers = {}
        self.headers_to_send = {}
        self.received = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def types(self):
        return [message["notification_type"] for _, message in self.received]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.received.append((self, message))
        self.send_response(self.server.answers.get(message["notification_type"], 200))
        for name, value in self.server.headers_to_send.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def listen():
    listeners = []

    def start():
        listeners.append(Listener())
        return listeners[-1]

    yield start
    for listener in listeners:
        listener.shutdown()
        listener.server_close()


@pytest.fixture
def listener(listen):
    return listen()


@pytest.fixture
def go(work):
    """Let the workers of both lanes do what there is to do."""

    def run():
        while handle_next_event(Lane.TRAININGS) or handle_next_event(Lane.PUSHES):
            pass

    return run


@pytest.fixture
def scene(make_scene, make_user, listener):
    """Two participants: the first polls, the second has an endpoint. Nothing has been pushed yet."""
    participants = [make_user("a"), make_user("b", message_endpoint=listener.url)]
    return make_scene(participants=participants, target_num_updates=1)


def pushes(user):
    return dict(user.notifications.values_list("type", "push"))


def test_what_is_pushed_is_what_the_seed_pushed(scene, listener, go):
    go()

    request, message = listener.received[1]
    assert request.path == "/hook?of=ada"
    assert request.headers["Host"] == f"127.0.0.1:{listener.server_port}"
    assert request.headers["Content-Type"] == "application/json"
    assert "Authorization" not in request.headers
    assert message == {
        "notification_type": "UPDATE_ROUND_START",
        "training_uuid": str(scene.id),
        "body": {"round": 0, "attempt": 1, "global_model_uuid": str(scene.model_id), "local": {}},
    }


def test_pushes_come_in_order_and_once(scene, listener, go):
    go()
    for participant in scene.participants:
        scene.send_update(participant)
    go()
    for participant in scene.participants:
        scene.report(participant, loss=1)
    go()

    assert listener.types == ["TRAINING_START", "UPDATE_ROUND_START", "MODEL_TEST_ROUND", "TRAINING_FINISHED"]
    assert set(pushes(scene.participants[1]).values()) == {Push.ACCEPTED}
    assert set(pushes(scene.participants[0]).values()) == {Push.NONE}


def test_who_is_pushed_to_may_poll_as_well(scene, go):
    go()

    assert scene.asked_of(scene.participants[1]) == ["UPDATE_ROUND_START"]


@pytest.mark.parametrize("status", [400, 404, 500, 302])
def test_who_rejects_a_round_leaves_the_training(scene, listener, go, status):
    listener.answers["UPDATE_ROUND_START"] = status
    one, _ = scene.participants

    go()

    assert scene.shown["participants"] == [str(one.pk)]
    assert listener.types == ["TRAINING_START", "UPDATE_ROUND_START", "CLIENT_REMOVED"]
    scene.send_update(one)
    go()
    assert scene.round_states == ["TESTING"]


def test_who_rejects_the_last_update_awaited_closes_the_round(scene, listener, go):
    listener.answers["UPDATE_ROUND_START"] = 500
    scene.send_update(scene.participants[0])

    go()

    assert scene.round_states == ["TESTING"]


def test_who_rejects_a_test_is_not_waited_for_but_stays(scene, listener, go):
    listener.answers["MODEL_TEST_ROUND"] = 400
    go()
    for participant in scene.participants:
        scene.send_update(participant)
    go()

    scene.report(scene.participants[0], loss=1)
    go()

    assert scene.state == "C"
    assert len(scene.shown["participants"]) == 2


@pytest.mark.parametrize("kind", ["TRAINING_START", "TRAINING_FINISHED"])
def test_any_other_rejection_is_ignored(scene, listener, go, kind):
    listener.answers[kind] = 400
    go()
    for participant in scene.participants:
        scene.send_update(participant)
    go()
    for participant in scene.participants:
        scene.report(participant, loss=1)
    go()

    assert scene.state == "C"
    assert pushes(scene.participants[1])[kind] == Push.REJECTED


def test_a_redirect_is_not_followed(scene, listener, listen, go):
    elsewhere = listen()
    listener.answers["TRAINING_START"] = 307
    listener.headers_to_send["Location"] = elsewhere.url

    go()

    assert elsewhere.received == []


@pytest.fixture
def nobody_there():
    """An address of this machine at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


def test_an_endpoint_that_cannot_be_reached_is_tried_again_and_then_left_alone(
    make_scene, make_user, nobody_there, go, bring_forward
):
    unreachable = make_user(message_endpoint=nobody_there)
    scene = make_scene(participants=[unreachable], options={"tests": "never"})

    for _ in range(MAX_ATTEMPTS):
        go()
        assert set(pushes(unreachable).values()) == {Push.PENDING}
        bring_forward()
    # The start of the training is given up now; that of the round is tried for itself.
    for _ in range(MAX_ATTEMPTS):
        go()
        assert sorted(pushes(unreachable).values()) == [Push.PENDING, Push.UNREACHABLE]
        bring_forward()
    go()

    assert set(pushes(unreachable).values()) == {Push.UNREACHABLE}
    assert scene.state == "O"
    # It still may poll, and the training goes on.
    assert scene.asked_of(unreachable) == ["UPDATE_ROUND_START"]
    scene.send_update(unreachable)
    go()
    assert scene.state == "C"


@pytest.fixture
def try_all_pushes(go, bring_forward):
    """Let all pauses between attempts pass."""

    def try_all():
        go()
        while Event.objects.unhandled().exists():
            bring_forward()
            go()

    return try_all


@pytest.fixture
def with_dead(make_scene, make_user, nobody_there):
    """A function: a training of two who poll and one whose endpoint is dead."""

    def make(**fields):
        people = [make_user("ann"), make_user("ben"), make_user("dead", message_endpoint=nobody_there)]
        return make_scene(participants=people, **fields)

    return make


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_who_cannot_be_reached_counts_as_missing_in_every_step(with_dead, try_all_pushes, answered):
    scene = with_dead(target_num_updates=2)
    ann, ben, dead = scene.participants
    for round in range(2):
        # Some answer before the dead endpoint is given up, and some after.
        for user in (ann, ben)[:answered]:
            scene.send_update(user, round=round)
        try_all_pushes()
        for user in (ann, ben)[answered:]:
            scene.send_update(user, round=round)
        try_all_pushes()
        assert scene.round_states[-1] == "TESTING"
        for user in (ann, ben):
            scene.report(user, loss=1)
        try_all_pushes()

    assert scene.state == "C"
    assert len(scene.shown["participants"]) == 3
    assert set(pushes(dead).values()) == {Push.UNREACHABLE}


def test_who_cannot_be_reached_is_told_of_in_an_event(with_dead, try_all_pushes):
    scene = with_dead()
    try_all_pushes()

    told = Event.objects.filter(subject=scene.id, kind=PUSH_FAILED).values_list("payload", flat=True)

    assert [each["type"] for each in told] == ["TRAINING_START", "UPDATE_ROUND_START"]
    assert {each["recipient"] for each in told} == {str(scene.participants[2].pk)}


def test_the_moments_of_who_cannot_be_reached_are_not_awaited(with_dead, try_all_pushes, as_):
    scene = with_dead(uncertainty_method="SWAG", options={"tests": "never"})
    try_all_pushes()
    for user in scene.participants[:2]:
        scene.send_update(user)
    try_all_pushes()
    assert scene.state == "S"

    for user in scene.participants[:2]:
        as_(user).send("POST", f"/api/models/{scene.model_id}/swag/", {"round": 1, "sample_size": 0})

    assert scene.state == "C"


def test_who_cannot_be_reached_but_polls_is_awaited_in_every_step(with_dead, try_all_pushes, work):
    scene = with_dead()
    *others, dead = scene.participants
    try_all_pushes()
    assert scene.asked_of(dead) == ["UPDATE_ROUND_START"]
    for user in others:
        scene.send_update(user)
    try_all_pushes()
    assert scene.round_states == ["OPEN"]

    scene.send_update(dead)
    work()
    for user in others:
        scene.report(user, loss=1)
    # It asks before its endpoint is given up this time.
    assert scene.asked_of(dead) == ["MODEL_TEST_ROUND"]
    try_all_pushes()
    assert scene.round_states == ["TESTING"]
    scene.report(dead, loss=1)
    assert scene.state == "C"


def test_what_comes_from_who_cannot_be_reached_counts_while_the_round_is_open(with_dead, try_all_pushes):
    scene = with_dead(options={"tests": "never"})
    ann, ben, dead = scene.participants
    try_all_pushes()
    scene.send_update(ann, w=[0, 0])
    scene.send_update(dead, w=[6, 6])
    scene.send_update(ben, w=[0, 0])
    try_all_pushes()

    assert scene.weights() == [2, 2]


def test_where_nobody_can_be_reached_the_round_waits_for_its_deadline(
    make_scene, make_user, nobody_there, try_all_pushes
):
    scene = make_scene(participants=[make_user(message_endpoint=nobody_there)], options={"round_retries": 0})
    try_all_pushes()
    assert scene.round_states == ["OPEN"]

    scene.let_deadline_pass()

    assert scene.state == "E"


def test_fewer_than_must_suffice_do_not_because_somebody_cannot_be_reached(with_dead, try_all_pushes):
    scene = with_dead(options={"min_updates": 3})
    try_all_pushes()
    for user in scene.participants[:2]:
        scene.send_update(user)
    try_all_pushes()

    assert scene.round_states == ["OPEN"]


def test_an_endpoint_that_cannot_be_reached_holds_up_nobody_else(make_scene, make_user, nobody_there, listener, go):
    make_scene(participants=[make_user(message_endpoint=nobody_there), make_user(message_endpoint=listener.url)])

    go()

    assert listener.types == ["TRAINING_START", "UPDATE_ROUND_START"]


def test_an_endpoint_that_cannot_be_reached_takes_a_line_of_the_log(make_scene, make_user, nobody_there, go, caplog):
    make_scene(participants=[make_user(message_endpoint=nobody_there)])
    caplog.clear()

    go()

    (said,) = caplog.records
    assert f"{nobody_there} does not answer" in said.getMessage()
    assert said.exc_info is None


def test_an_endpoint_that_comes_back_is_told_everything_in_order(
    make_scene, make_user, listener, nobody_there, go, bring_forward
):
    away = make_user(message_endpoint=nobody_there)
    make_scene(participants=[away])
    go()

    away.message_endpoint = listener.url
    away.save()
    bring_forward()
    go()

    assert listener.types == ["TRAINING_START", "UPDATE_ROUND_START"]


def test_a_forbidden_endpoint_is_not_reached_and_does_not_derail_the_training(make_scene, make_user, go):
    forbidden = make_user(message_endpoint="http://10.0.0.1/")
    scene = make_scene(participants=[forbidden])

    go()

    assert set(pushes(forbidden).values()) == {Push.FORBIDDEN}
    assert scene.shown["participants"] == [str(forbidden.pk)]


def test_in_production_nothing_is_pushed_unless_it_is_named(scene, listener, go, settings):
    settings.EMBEDDED = False

    go()

    assert listener.received == []
    assert set(pushes(scene.participants[1]).values()) == {Push.FORBIDDEN}


def test_in_production_what_is_named_is_pushed_to(scene, listener, go, settings):
    settings.EMBEDDED = False
    settings.PUSH_ALLOW = ["127.0.0.1"]

    go()

    assert listener.types == ["TRAINING_START", "UPDATE_ROUND_START"]


@pytest.fixture
def new_http_client():
    """The hub keeps one, which reads its environment, if at all, as it is made."""
    push._http.cache_clear()
    yield
    push._http.cache_clear()


@pytest.mark.usefixtures("new_http_client")
def test_a_proxy_of_the_environment_is_not_asked(scene, listener, listen, go, monkeypatch):
    proxy = listen()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")

    go()

    assert proxy.received == []
    assert len(listener.received) == 2
