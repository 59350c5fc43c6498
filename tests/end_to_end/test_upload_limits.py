"""U13 and R8: what is too large is refused before it is there, what the disk does not take leaves nothing behind."""

from __future__ import annotations

import resource
import select
import socket
from urllib.parse import urlsplit

import pytest
from chunks import Upload
from harness import wait_until

LIMIT = 1_000_000
BLOCK = b"x" * 50_000


@pytest.fixture
def settings():
    return {"FOLKMOOT_MAX_UPLOAD_BYTES": str(LIMIT)}


@pytest.fixture
def request_head(world):
    """A function: a connection on which the head of a raw update was sent, without the length of its body."""
    world.server.start()
    accounts = world.participants(2)
    update = world.update_of(accounts[0], world.started(accounts, rounds=1, tests="never"), 0)
    url = urlsplit(world.server.url)

    def send(*lines):
        connection = socket.create_connection((url.hostname, url.port), timeout=30)
        path = f"/api/models/{update.model_id}/update/?round=0&sample_size=1"
        lines = (f"PUT {path} HTTP/1.1", f"Host: {url.netloc}", f"Authorization: Token {update.sender.token}", *lines)
        connection.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        return connection

    return send


def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(request_head):
    connection = request_head("Content-Length: 1000001", "Expect: 100-continue")

    assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_say_how_large_it_is_is_refused_as_it_grows(world, request_head):
    connection = request_head("Transfer-Encoding: chunked")
    sent = 0
    while not select.select([connection], [], [], 0)[0] and sent < 100 * LIMIT:
        connection.sendall(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK))
        sent += len(BLOCK)

    assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    wait_until(lambda: world.place.incoming() == [], "the incoming folder to be empty")


def test_a_full_disk_refuses_a_chunk_and_the_upload_goes_on_once_there_is_room(world):
    world.server.start()
    upload = Upload.of_model(world, 300_000)
    upload.send(b"a" * 100_000, at=0)
    resource.prlimit(world.server.process.pid, resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))

    answer = upload.send(b"b" * 100_000, at=100_000)

    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert upload.offset() == 100_000
    assert [file.stat().st_size for file in (world.place.blobs / "partial").iterdir()] == [100_000]
    resource.prlimit(world.server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert upload.send(b"b" * 100_000, at=100_000).headers["Upload-Offset"] == "200000"
