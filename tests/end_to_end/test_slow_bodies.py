"""R10: who sends a body a byte at a time, or stops in the middle, is given up, and holds nobody else up."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

import pytest
from chunks import BYTES, put
from harness import wait_until

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


def begin(world, update, way, *, body=b"--x\r\n", length=1_000_000):
    """Send the head of a request and a few bytes of its body; return the connection."""
    method, path, kind = WAYS[way]
    url = urlsplit(world.server.url)
    connection = socket.create_connection((url.hostname, url.port), timeout=30)
    head = f"{method} {path.format(model=update.model_id)} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: {kind}\r\n"
    head += f"Authorization: Token {update.sender.token}\r\nContent-Length: {length}\r\n\r\n"
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


def test_a_body_that_takes_long_but_keeps_coming_is_read(world, update):
    def slowly():
        for _ in range(10):
            time.sleep(0.25)
            yield b"no model" * 600

    answer = put(world, update, content=slowly())

    assert (answer.status_code, answer.json()["code"]) == (400, "unsupported_container")


@pytest.mark.parametrize("settings", [{}], ids=["patient"])
@pytest.mark.parametrize("length", [1000, 1_000_000], ids=["small", "large"])
def test_more_slow_bodies_than_threads_hold_up_nobody(world, update, length):
    connections = [begin(world, update, "raw", length=length) for _ in range(MORE_THAN_THREADS)]
    time.sleep(0.2)
    started = time.monotonic()

    world.training(update.training_id)
    assert world.send(update).status_code == 201

    assert time.monotonic() - started < 10
    for connection in connections:
        connection.close()
