"""Who takes an answer slowly holds nobody up; who takes nothing of it is given up."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from harness import HTTP, as_file

SIZE = 20_000_000
MORE_THAN_THREADS = 20


@pytest.fixture
def settings():
    return {}


@pytest.fixture
def file():
    return as_file({"w": np.random.default_rng(1).normal(size=SIZE // 4).astype(np.float32)})


@pytest.fixture
def path(world, file):
    """Where a large model is to be had."""
    world.server.start()
    form = {"name": "large", "description": "d"}
    answer = world.call(world.actor, "POST", "/api/models/", data=form, files={"model_file": ("m", file)})
    return f"/api/models/{answer.json()['model_id']}/"


@pytest.fixture
def ask(world):
    """A function that asks for a path and returns the connection, from which nothing is read yet."""
    with contextlib.ExitStack() as connections:

        def ask(path):
            url = urlsplit(world.server.url)
            connection = connections.enter_context(socket.socket())
            # Before it connects: of a system that takes in megabytes by itself, nobody would seem slow.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.settimeout(30)
            connection.connect((url.hostname, url.port))
            head = f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Token {world.actor.token}\r\n"
            connection.sendall(head.encode() + b"Connection: close\r\n\r\n")
            return connection

        yield ask


def rest_of(connection, *, pause=0.0):
    """What still comes, taken a bit at a time, until the line ends or is cut."""
    taken = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while block := connection.recv(200_000 if pause else 2**20):
            taken += block
            time.sleep(pause)
    return bytes(taken)


def begun(connection):
    """Wait until the answer has begun to come."""
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def test_more_slow_readers_than_threads_hold_up_nobody(world, ask, path):
    for _ in range(MORE_THAN_THREADS):
        begun(ask(path))

    answer = HTTP.get(world.server.url + "/healthz", timeout=5)

    assert answer.status_code == 200


@pytest.mark.parametrize("settings", [{"FOLKMOOT_BODY_TIMEOUT_SECONDS": "0.5"}], ids=["impatient"])
def test_who_takes_nothing_is_cut_off(ask, path):
    connection = begun(ask(path))

    time.sleep(2)

    assert len(rest_of(connection)) < SIZE / 2


@pytest.mark.parametrize("settings", [{"FOLKMOOT_BODY_TIMEOUT_SECONDS": "0.5"}], ids=["impatient"])
def test_who_takes_his_time_gets_it_all(ask, path, file):
    taken = rest_of(ask(path), pause=0.02)

    assert hashlib.sha256(taken.partition(b"\r\n\r\n")[2]).digest() == hashlib.sha256(file).digest()
