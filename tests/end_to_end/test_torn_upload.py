"""R9: an upload that breaks off, or lies about its length, counts as nothing and leaves nothing."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest
from chunks import Upload, digest
from harness import HTTP, as_file, initial_model, wait_until
from invariants import orphans


@pytest.fixture
def update(hub):
    accounts = hub.participants(2)
    return hub.update_of(accounts[0], hub.started(accounts, rounds=1, tests="never"), 0)


def as_bytes(hub, update):
    """The request as it goes over the wire: its head without the length, and its body."""
    request = HTTP.build_request("POST", f"{hub.server.url}/api/models/{update.model_id}/", **update.request())
    body = request.read()
    head = f"POST {request.url.path} HTTP/1.1\r\nHost: {request.url.netloc.decode()}\r\nConnection: close\r\n"
    head += f"Authorization: Token {update.sender.token}\r\nContent-Type: {request.headers['Content-Type']}\r\n"
    return head.encode(), body


def send_raw(hub, *parts, then_read=False):
    """Send these bytes and hang up; with `then_read` only after reading the answer, whose status is returned."""
    parts_of_url = urlsplit(hub.server.url)
    with socket.create_connection((parts_of_url.hostname, parts_of_url.port), timeout=30) as connection:
        connection.sendall(b"".join(parts))
        if not then_read:
            return 0
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return int(answer.split()[1])


def length(count):
    return f"Content-Length: {count}\r\n\r\n".encode()


def nothing_came_of_it(hub, update):
    """The round waits for the update as before, which comes in as a new one; no file is left."""
    assert hub.training(update.training_id)["local_models_arrived"] == 0
    assert hub.send(update).status_code == 201
    wait_until(lambda: hub.place.incoming() == [], "the incoming folder to be empty")
    return True


CUTS = {
    "before the body": lambda body: 0,
    "in the fields": lambda body: 30,
    "before the file": lambda body: body.index(b"\r\n\r\n", body.index(b"model_file")) + 4,
    "in the file": lambda body: body.index(b"\r\n\r\n", body.index(b"model_file")) + 100,
    "before the last boundary": lambda body: body.rindex(b"\r\n--"),
    "in the last boundary": lambda body: len(body) - 6,
    "before the last byte": lambda body: len(body) - 1,
}


@pytest.mark.parametrize("cut", CUTS)
def test_an_upload_that_breaks_off_counts_as_nothing(hub, update, cut):
    head, body = as_bytes(hub, update)

    send_raw(hub, head, length(len(body)), body[: CUTS[cut](body)])

    assert nothing_came_of_it(hub, update)


def test_an_upload_in_chunks_that_breaks_off_counts_as_nothing(hub, update):
    head, body = as_bytes(hub, update)

    send_raw(hub, head, b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n" % (len(body) - 200), body[:-200], b"\r\n")

    assert nothing_came_of_it(hub, update)


@pytest.mark.parametrize("cut", ["in the fields", "before the file", "in the file"])
def test_a_content_length_that_ends_too_soon_is_refused(hub, update, cut):
    head, body = as_bytes(hub, update)

    status = send_raw(hub, head, length(CUTS[cut](body)), body, then_read=True)

    assert 400 <= status < 500
    assert nothing_came_of_it(hub, update)


def test_a_content_length_beyond_the_end_gets_no_answer_and_counts_as_nothing(hub, update):
    head, body = as_bytes(hub, update)

    send_raw(hub, head, length(len(body) + 100), body)

    assert nothing_came_of_it(hub, update)


def test_an_upload_that_breaks_off_leaves_no_blob(hub, update):
    before = orphans(hub.place)
    head, body = as_bytes(hub, update)

    send_raw(hub, head, length(len(body)), body[:-1])

    assert nothing_came_of_it(hub, update)
    assert orphans(hub.place) == before


# Raw bodies


def head_of(hub, who, method, path, *headers):
    """A request's head without the length of its body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(hub.server.url).netloc}", "Connection: close"]
    lines += [f"Authorization: Token {who.token}", "Content-Type: application/octet-stream", *headers]
    return ("\r\n".join(lines) + "\r\n").encode()


def raw_head(hub, update):
    path = f"/api/models/{update.model_id}/update/?round={update.round}&sample_size={update.num_examples}"
    return head_of(hub, update.sender, "PUT", path)


def in_chunks(data, *, end=True):
    """Data in the chunks of HTTP, each of 50 bytes."""
    pieces = [data[start : start + 50] for start in range(0, len(data), 50)]
    body = b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces)
    return body + b"0\r\n\r\n" if end else body


@pytest.mark.parametrize("sent", [0, 1, -1], ids=["nothing", "a byte", "all but a byte"])
def test_a_raw_update_that_breaks_off_counts_as_nothing(hub, update, sent):
    send_raw(hub, raw_head(hub, update), length(len(update.file)), update.file[:sent])

    assert nothing_came_of_it(hub, update)


def test_a_raw_update_in_chunks_is_taken(hub, update):
    status = send_raw(hub, raw_head(hub, update), in_chunks(update.file), then_read=True)

    assert status == 201
    assert hub.send(update).status_code == 200


@pytest.mark.parametrize("sent", [100, None], ids=["in the middle", "before the last chunk"])
def test_a_raw_update_in_chunks_that_breaks_off_counts_as_nothing(hub, update, sent):
    send_raw(hub, raw_head(hub, update), in_chunks(update.file[:sent], end=False))

    assert nothing_came_of_it(hub, update)


def test_a_raw_update_with_a_length_that_ends_too_soon_is_refused(hub, update):
    status = send_raw(hub, raw_head(hub, update), length(len(update.file) - 10), update.file, then_read=True)

    assert status == 400
    assert nothing_came_of_it(hub, update)


@pytest.fixture
def upload(hub):
    """An upload, its file, and the first half of that sent."""
    file = as_file(initial_model())
    upload = Upload.of_model(hub, len(file))
    upload.send(file[:100], at=0)
    return upload, file


@pytest.mark.parametrize("way", ["with a length", "in chunks"])
def test_of_a_chunk_that_breaks_off_nothing_counts(hub, upload, way):
    upload, file = upload
    rest = file[100:]
    headers = ("Upload-Offset: 100", f"X-Content-SHA256: {digest(rest)}")
    head = head_of(hub, hub.actor, "PATCH", upload.path, *headers)

    body = length(len(rest)) + rest[:-1] if way == "with a length" else in_chunks(rest, end=False)
    send_raw(hub, head, body)

    wait_until(lambda: hub.place.incoming() == [], "the incoming folder to be empty")
    assert upload.offset() == 100
    upload.send(rest, at=100)
    assert upload.commit(file).status_code == 201
