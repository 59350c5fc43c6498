"""R10: who sends a body a byte at a time, or stops in the middle, is given up, and holds nobody else up."""

from __future__ import annotations

import contextlib
import socket
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from chunks import BYTES, put
from harness import as_file, wait_until

WAYS = {
    "form": ("POST", "/api/models/", "multipart/form-data; boundary=x"),
    "json": ("POST", "/api/trainings/", "application/json"),
    "raw": ("PUT", "/api/models/{model}/update/?round=0&sample_size=1", BYTES["Content-Type"]),
}
MORE_THAN_THREADS = 20


@pytest.fixture
def settings():
    return {"FOLKMOOT_BODY_TIMEOUT_SECONDS": "1"}


@pytest.fixture
def update(world):
    world.server.start()
    accounts = world.participants(2)
    return world.update_of(accounts[0], world.started(accounts, rounds=1, tests="never"), 0)


def begin(world, update, way, *, body=b"--x\r\n", length=1_000_000, headers=""):
    """Send the head of a request and a few bytes of its body; return the connection."""
    method, path, kind = WAYS[way]
    url = urlsplit(world.server.url)
    connection = socket.create_connection((url.hostname, url.port), timeout=30)
    head = f"{method} {path.format(model=update.model_id)} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: {kind}\r\n"
    head += f"Authorization: Token {update.sender.token}\r\nContent-Length: {length}\r\n{headers}\r\n"
    connection.sendall(head.encode() + body)
    return connection


def answer_of(connection):
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer


@pytest.mark.parametrize("way", WAYS)
def test_a_body_that_stops_in_the_middle_is_given_up(world, update, way):
    answer = answer_of(begin(world, update, way))

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"too_slow"' in answer
    assert b"connection: close" in answer.lower()
    wait_until(lambda: world.place.incoming() == [], "the incoming folder to be empty")


def test_a_body_that_drips_is_given_up(world, update):
    connection = begin(world, update, "raw")
    connection.settimeout(0.1)
    started = time.monotonic()
    answer = b""
    while not answer and time.monotonic() - started < 20:
        connection.sendall(b"x")
        try:
            answer = connection.recv(65536)
        except TimeoutError:
            continue

    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_large_body_has_to_come_faster_than_a_small_one(world, update):
    connection = begin(world, update, "raw")
    connection.settimeout(0.1)
    started = time.monotonic()
    answer = b""
    while not answer and time.monotonic() - started < 10:
        connection.sendall(b"x" * 800)
        try:
            answer = connection.recv(65536)
        except TimeoutError:
            continue

    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_takes_long_but_keeps_coming_is_read(world, update):
    def slowly():
        for _ in range(10):
            time.sleep(0.25)
            yield b"no model" * 2000

    answer = put(world, update, content=slowly())

    assert (answer.status_code, answer.json()["code"]) == (400, "unsupported_container")


@pytest.fixture
def await_bodies(world, update):
    """A function: has that many bodies of a user awaited, none of which comes; returns what the hub says to each."""
    with contextlib.ExitStack() as connections:

        def await_bodies(count, *, length):
            waiting = {"length": length, "body": b"", "headers": "Expect: 100-continue\r\n"}
            begun = [begin(world, update, "raw", **waiting) for _ in range(count)]
            return map(said_to, [connections.enter_context(connection) for connection in begun])

        yield await_bodies


def said_to(connection):
    """`100` once the body is awaited, else the whole answer."""
    said = b""
    while not said.startswith(b"HTTP/1.1 100 ") and not said.endswith(b"}"):
        said += connection.recv(65536)
    return said.decode().partition(" ")[2]


@pytest.mark.parametrize("settings", [{}], ids=["patient"])
def test_more_slow_small_bodies_than_threads_hold_up_nobody(world, update, await_bodies):
    said = [*await_bodies(MORE_THAN_THREADS, length=1000)]
    started = time.monotonic()

    world.training(update.training_id)
    assert world.send(update).status_code == 201

    assert all(each.startswith("100 ") for each in said)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("settings", [{}], ids=["patient"])
def test_more_slow_large_bodies_than_threads_hold_up_nobody(world, update, await_bodies):
    said = await_bodies(MORE_THAN_THREADS, length=1_000_000)
    assert next(said).startswith("100 ")
    started = time.monotonic()

    world.training(update.training_id)
    assert world.send(update).status_code == 201
    assert upload_large_model(world).status_code == 201

    assert time.monotonic() - started < 10


@pytest.mark.parametrize("settings", [{}], ids=["patient"])
def test_of_one_user_few_large_bodies_are_read_at_once_and_the_others_are_sent_away(await_bodies):
    said = [*await_bodies(6, length=1_000_000)]

    refused = [each for each in said if not each.startswith("100 ")]

    assert len(refused) == 2
    for each in refused:
        assert each.startswith("503 ")
        assert "retry-after: 2" in each
        assert '"code": "unavailable"' in each


def upload_large_model(world):
    form = {"name": "large", "description": "d"}
    file = as_file({"w": np.zeros(100_000, np.float32)})
    return world.call(world.actor, "POST", "/api/models/", data=form, files={"model_file": ("m", file)})
