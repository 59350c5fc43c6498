"""How files go up: by the hub's answers to each request."""

import hashlib
import logging

import pytest

from folkmoot import errors
from folkmoot.client import Hub
from folkmoot.protocol import paths

DATA = bytes(range(256)) * 10
SHA256 = hashlib.sha256(DATA).hexdigest()
CHUNK = 1000


@pytest.fixture
def hub(scripted):
    with Hub(scripted.url, "ab" * 20, chunked_from=len(DATA)) as hub:
        yield hub


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def opens(scripted, answer):
    """A function: the hub's answers to openings, each with the offset where the upload goes on."""

    def script(*offsets, method="POST"):
        path = paths.UPLOADS if method == "POST" else paths.upload("u")
        for offset in offsets:
            body = {"id": "u", "offset": offset, "size": len(DATA), "max_chunk_bytes": CHUNK}
            scripted.on(method, path, answer(201 if offset == 0 else 200, body))

    return script


@pytest.fixture
def takes(scripted, answer):
    """A function: the hub's answers to chunks, None for one that is lost."""

    def script(*statuses, code=""):
        for status in statuses:
            body = {"detail": "because", "code": code} if code else b""
            scripted.on("PATCH", paths.upload("u"), status and answer(status, body))

    return script


@pytest.fixture
def commits(scripted, answer):
    def script(*statuses, **body):
        for status in statuses:
            reply = status and answer(status, {"model_id": "m", "update_id": "v", "detail": "because"} | body)
            scripted.on("POST", paths.upload_commit("u"), reply)

    return script


def chunks_sent(scripted):
    return [(int(each.headers["Upload-Offset"]), each.body) for each in scripted.received("PATCH", paths.upload("u"))]


WHOLE = [(0, DATA[:1000]), (1000, DATA[1000:2000]), (2000, DATA[2000:])]


def test_a_large_model_goes_up_in_chunks(hub, scripted, file, opens, takes, commits):
    opens(0)
    takes(204, 204, 204)
    commits(201)

    assert hub.upload_model("digits", "a network", file) == "m"

    assert scripted.requests[0].body == (
        b'{"target":"/api/models/","fields":{"name":"digits","description":"a network"},'
        b'"size":2560,"sha256":"' + SHA256.encode() + b'"}'
    )
    assert chunks_sent(scripted) == WHOLE
    first = scripted.received("PATCH", paths.upload("u"))[0]
    assert first.headers["X-Content-SHA256"] == hashlib.sha256(DATA[:1000]).hexdigest()


def test_a_large_update_goes_up_in_chunks(hub, scripted, file, opens, takes, commits):
    opens(0)
    takes(204, 204, 204)
    commits(201)

    assert hub.upload_update("m", 3, 120, file, {"loss": float("nan")}, sha256=SHA256) == "v"

    assert b'"target":"/api/models/m/"' in scripted.requests[0].body
    assert b'"metric_values":["nan"]' in scripted.requests[0].body


def test_an_update_with_too_many_metrics_for_an_address_goes_up_as_a_form(hub, scripted, answer, tmp_path):
    scripted.on("POST", paths.model("m"), answer(201, {"update_id": "v"}))
    (tmp_path / "update").write_bytes(b"small")

    hub.upload_update("m", 0, 1, tmp_path / "update", {f"metric {number}": 1.0 for number in range(500)})

    assert len(scripted.requests[0].fields["metric_names"]) == 500
    assert scripted.requests[0].files == {"model_file": b"small"}


def test_an_upload_that_the_hub_has_in_part_is_continued(hub, scripted, file, opens, takes, commits):
    opens(2000)
    takes(204)
    commits(201)

    hub.upload_model("digits", "", file)

    assert chunks_sent(scripted) == WHOLE[2:]


def test_after_a_broken_line_the_hub_is_asked_where_to_go_on(hub, scripted, file, opens, takes, commits):
    opens(0)
    takes(204, None)
    opens(1000, method="GET")
    takes(204, 204)
    commits(201)

    assert hub.upload_model("digits", "", file) == "m"

    assert chunks_sent(scripted) == [WHOLE[0], WHOLE[1], WHOLE[1], WHOLE[2]]


@pytest.mark.parametrize(("status", "code"), [(422, "digest_mismatch"), (400, "incomplete_request")])
def test_a_chunk_that_did_not_arrive_as_it_was_is_sent_again(hub, scripted, file, opens, takes, commits, status, code):
    opens(0)
    takes(204)
    takes(status, code=code)
    takes(204, 204)
    commits(201)

    assert hub.upload_model("digits", "", file) == "m"

    assert chunks_sent(scripted) == [WHOLE[0], WHOLE[1], WHOLE[1], WHOLE[2]]


def test_a_line_that_spoils_every_chunk_is_given_up_and_the_upload_stays(hub, scripted, file, opens, takes):
    opens(0)
    takes(422, 422, 422, code="digest_mismatch")

    with pytest.raises(errors.DigestMismatch):
        hub.upload_model("digits", "", file)

    assert chunks_sent(scripted) == [WHOLE[0]] * 3
    assert scripted.received("DELETE", paths.upload("u")) == []


def test_a_line_that_brings_nothing_forward_is_given_up_until_the_next_call(hub, scripted, file, opens, takes, commits):
    opens(0)
    takes(None)
    opens(0, method="GET")
    with pytest.raises(errors.Unavailable):
        hub.upload_model("digits", "", file)
    opens(0, method="GET")
    takes(204, 204, 204)
    commits(201)

    assert hub.upload_model("digits", "", file) == "m"

    assert len(scripted.received("POST", paths.UPLOADS)) == 1


def test_a_chunk_that_arrived_after_it_was_given_up_is_not_sent_again(hub, scripted, file, opens, takes, commits):
    opens(0)
    takes(None)
    opens(1000, method="GET")
    takes(409, code="wrong_offset")
    opens(2000, method="GET")
    takes(204)
    commits(201)

    assert hub.upload_model("digits", "", file) == "m"


def test_a_commit_whose_answer_is_lost_is_asked_for_again(hub, scripted, file, opens, takes, commits):
    opens(0)
    takes(204, 204, 204)
    commits(None)
    opens(len(DATA), method="GET")
    commits(201)

    assert hub.upload_model("digits", "", file) == "m"

    assert len(chunks_sent(scripted)) == 3


def test_an_upload_that_has_expired_begins_anew(hub, scripted, answer, file, opens, takes, commits):
    opens(0)
    takes(204, None)
    scripted.on("GET", paths.upload("u"), answer(404, {"detail": "Upload u not found.", "code": "not_found"}))
    opens(0)
    with pytest.raises(errors.Unavailable):
        hub.upload_model("digits", "", file)

    opens(0, method="GET")
    takes(204, 204, 204)
    commits(201)
    assert hub.upload_model("digits", "", file) == "m"


def test_a_hub_that_is_busy_is_not_asked_again_at_once(hub, scripted, answer, file, opens):
    opens(0)
    scripted.on("PATCH", paths.upload("u"), answer(503, {"detail": "later"}, {"Retry-After": "7"}))

    with pytest.raises(errors.Unavailable) as caught:
        hub.upload_model("digits", "", file)

    assert caught.value.retry_after == 7
    assert len(scripted.requests) == 2


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "non_finite", errors.NonFinite),
        (400, "round_closed", errors.RoundClosed),
        (422, "digest_mismatch", errors.DigestMismatch),
    ],
)
def test_an_upload_that_is_refused_is_thrown_away(
    hub, scripted, answer, file, opens, takes, commits, status, code, kind
):
    opens(0)
    takes(204, 204, 204)
    commits(status, code=code)
    scripted.on("DELETE", paths.upload("u"), answer(204, b""))

    with pytest.raises(kind):
        hub.upload_model("digits", "", file)

    assert len(scripted.received("DELETE", paths.upload("u"))) == 1


def test_the_refusal_is_raised_even_if_the_upload_cannot_be_thrown_away(
    hub, scripted, lost, file, opens, takes, commits
):
    opens(0)
    takes(204, 204, 204)
    commits(400, code="non_finite")
    scripted.on("DELETE", paths.upload("u"), lost)

    with pytest.raises(errors.NonFinite):
        hub.upload_model("digits", "", file)


def test_progress_is_told(hub, scripted, answer, file, opens, takes, commits, tmp_path):
    opens(0)
    takes(204, 204, 204)
    commits(201)
    told = []
    hub.upload_model("digits", "", file, progress=lambda *numbers: told.append(numbers))
    scripted.on("POST", paths.MODELS, answer(201, {"model_id": "m"}))
    (tmp_path / "small").write_bytes(b"small")
    hub.upload_model("digits", "", tmp_path / "small", progress=lambda *numbers: told.append(numbers))

    assert told == [(1000, 2560), (2000, 2560), (2560, 2560), (5, 5)]


def test_an_upload_that_takes_long_is_logged(scripted, file, opens, takes, commits, caplog):
    caplog.set_level(logging.INFO, "folkmoot.client")
    opens(0)
    takes(204, 204, 204)
    commits(201)

    with Hub(scripted.url, "ab" * 20, chunked_from=len(DATA), log_seconds=0.0) as hub:
        hub.upload_model("digits", "", file)

    assert [record.getMessage() for record in caplog.records][-1] == "0 of 0 MB sent"
