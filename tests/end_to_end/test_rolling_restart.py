"""R21: the web processes of one hub are replaced, one after the other, in the middle of rounds."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from harness import Participants, Server, wait_until
from lines import Balancer
from load import Load

DRAINS_WITHIN = 30
SLOW_END = os.pathsep.join([str(Path(__file__).with_name("slow_end")), *os.environ.get("PYTHONPATH", "").split()])


@pytest.fixture
def backend():
    return "postgres"


@pytest.fixture
def replicas(world):
    """Two web processes on one database, which handle the events, too."""
    servers = (world.server, Server(world.place))
    try:
        for each in servers:
            each.launch()
        for each in servers:
            each.wait_until_ready()
        yield servers
    finally:
        servers[1].kill()


@pytest.fixture
def balancer(replicas):
    balancer = Balancer([each.url for each in replicas])
    yield balancer
    balancer.close()


@pytest.fixture
def begin():
    """A function: has a web process read the body of an update; gives the connection, on which nothing was sent yet."""
    with contextlib.ExitStack() as until_the_end:

        def begin(server, update, *, length):
            url = urlsplit(server.url)
            path = f"/api/models/{update.model_id}/update/?round={update.round}&sample_size={update.num_examples}"
            lines = [f"PUT {path} HTTP/1.1", f"Host: {url.netloc}", f"Authorization: Token {update.sender.token}"]
            lines += ["Content-Type: application/octet-stream", f"Content-Length: {length}", "Expect: 100-continue"]
            connection = socket.create_connection((url.hostname, url.port), timeout=DRAINS_WITHIN)
            until_the_end.enter_context(connection)
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
            return connection

        yield begin


def answer_of(connection):
    return b"".join(iter(lambda: connection.recv(65536), b""))


def takes_connections(server):
    url = urlsplit(server.url)
    with socket.socket() as asker:
        return asker.connect_ex((url.hostname, url.port)) == 0


def test_web_processes_are_replaced_one_after_the_other_and_nobody_notices(
    world, replicas, balancer, begin, undisturbed
):
    ann, ben = world.participants(2)
    balanced = replace(world, server=SimpleNamespace(url=balancer.url, place=world.place))
    training_id = balanced.create_training([ann, ben], rounds=2, tests="never")
    with Participants(balanced, [ben]) as others, Load(balanced, training_id) as load:
        balanced.start(training_id)
        for number, server in enumerate(replicas):
            load.wait_for_round(number)
            update = balanced.update_of(ann, training_id, number)
            connection = begin(server, update, length=len(update.file))
            server.process.terminate()
            wait_until(lambda told=server: not takes_connections(told), "the web process to take no more requests")
            connection.sendall(update.file)
            assert answer_of(connection).startswith(b"HTTP/1.1 201 ")
            assert server.process.wait(timeout=DRAINS_WITHIN) == 0
            server.start()
            assert balanced.send(update).status_code == 200
        load.wait_for_end()

    assert max(balancer.statuses) < 400
    assert others.trained == {"ben": [0, 1]}
    assert world.weights(training_id)[1] == undisturbed(2, 2)


@pytest.mark.parametrize(
    "settings", [{"FOLKMOOT_BODY_TIMEOUT_SECONDS": "90", "PYTHONPATH": SLOW_END}], ids=["patient, with a slow end"]
)
def test_a_web_process_does_not_wait_for_ever_for_bodies_that_do_not_come(world, begin):
    world.server.start()
    accounts = world.participants(2)
    update = world.update_of(accounts[0], world.started(accounts, rounds=1, tests="never"), 0)
    connections = [begin(world.server, update, length=length) for length in (len(update.file), 1_000_000)]
    connections[1].sendall(bytes(1000))

    code = world.server.terminate(seconds=DRAINS_WITHIN)

    assert code == 0
    for answer in map(answer_of, connections):
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 2" in answer
        assert b'"code": "unavailable"' in answer
    world.server.start()
    assert world.send(update).status_code == 201
