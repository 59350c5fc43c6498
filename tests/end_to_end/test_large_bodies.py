"""Large bodies pass the server's parser by; whatever follows them on the same connection is understood."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import numpy as np
import pytest
from chunks import BYTES, Upload, digest
from harness import as_file

FILE = as_file({"w": np.random.default_rng(1).normal(size=1_500_000).astype(np.float32)})


@pytest.fixture
def model(hub):
    """Where the file is to be had."""
    form = {"name": "large", "description": "d"}
    answer = hub.call(hub.actor, "POST", "/api/models/", data=form, files={"model_file": ("m", FILE)})
    assert answer.status_code == 201
    return f"/api/models/{answer.json()['model_id']}/"


@pytest.fixture
def line(hub):
    """A connection to the hub."""
    url = urlsplit(hub.server.url)
    with socket.create_connection((url.hostname, url.port), timeout=30) as connection:
        yield connection


@pytest.fixture
def head_of(hub):
    """A function: the head of a request of the actor's."""

    def head(method, path, **headers):
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Token {hub.actor.token}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    return head


def answers_on(line):
    """Everything that comes until the hub hangs up."""
    answers = bytearray()
    while block := line.recv(2**20):
        answers += block
    return bytes(answers)


def test_a_file_its_parts_and_other_answers_follow_one_another_on_one_connection(line, head_of, model):
    asked = [{}, {"Range": "bytes=1000-3000999"}, {"Range": "bytes=-70000"}, {"If_None_Match": "*"}]
    line.sendall(b"".join(head_of("GET", model, **each) for each in asked))
    line.sendall(head_of("HEAD", model) + head_of("GET", model, Connection="close"))

    heads = answers_on(line)
    for status, body in ((200, FILE), (206, FILE[1000:3_001_000]), (206, FILE[-70_000:]), (304, b""), (200, b"")):
        head, _, heads = heads.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert heads.startswith(body)
        heads = heads[len(body) :]

    assert heads.partition(b"\r\n\r\n")[2] == FILE


@pytest.fixture
def upload(hub):
    """An upload in chunks, of which nothing has come yet."""
    return Upload.of_model(hub, len(FILE))


@pytest.fixture
def chunk_of(head_of, upload):
    """A function: the request that sends a chunk of FILE, as if the upload were at `at`."""

    def chunk(span, *, at, sha256=None):
        body = FILE[span]
        headers = BYTES | {"Upload-Offset": at, "X-Content-SHA256": sha256 or digest(body)}
        return head_of("PATCH", upload.path, Content_Length=len(body), **headers) + body

    return chunk


HALF = len(FILE) // 2
FIRST, SECOND = slice(HALF), slice(HALF, None)


def test_chunks_follow_one_another_on_one_connection_whatever_is_said_to_them(line, head_of, chunk_of, upload):
    line.sendall(chunk_of(FIRST, at=0, sha256=digest(b"another")))
    line.sendall(chunk_of(FIRST, at=70_000))  # refused before it is read
    line.sendall(chunk_of(FIRST, at=0) + chunk_of(SECOND, at=HALF))
    line.sendall(head_of("GET", upload.path, Connection="close"))

    answers = answers_on(line)

    statuses = [int(head[:3]) for head in answers.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [422, 409, 204, 204, 200]
    assert upload.commit(FILE).status_code == 201
