"""Uploads in chunks: a chunk counts whole or not at all, and what is committed is done once."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from folkmoot.errors import NotFound, Unavailable, WrongOffset
from folkmoot.server.registry.models import Model
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.trainings.models import Update
from folkmoot.server.uploads import services, sweeps
from folkmoot.server.uploads.models import Upload

pytestmark = pytest.mark.django_db

MODELS = "/api/models/"
FIELDS = {"name": "m", "description": "d"}


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Program:
    """A user's program that uploads."""

    def __init__(self, caller):
        self.caller = caller

    def open(self, data, *, target=MODELS, fields=None, **changes):
        body = {"target": target, "fields": FIELDS if fields is None else fields, "size": len(data)} | changes
        return self.caller.send("POST", "/api/uploads/", body)

    def opened(self, data, **changes):
        answer = self.open(data, **changes)
        assert answer.status_code == 201, answer.json()
        return answer.json()["id"]

    def send(self, upload, offset, data, **headers):
        headers = {"Upload-Offset": str(offset), "X-Content-SHA256": digest(data)} | headers
        headers = {name: value for name, value in headers.items() if value is not None}
        return self.caller.generic(
            "PATCH", f"/api/uploads/{upload}/", data, headers.pop("kind", "application/octet-stream"), headers=headers
        )

    def sent(self, data, **changes):
        upload = self.opened(data, **changes)
        assert self.send(upload, 0, data).status_code == 204
        return upload

    def offset(self, upload):
        return int(self.caller.head(f"/api/uploads/{upload}/")["Upload-Offset"])

    def commit(self, upload, sha256=None):
        return self.caller.send("POST", f"/api/uploads/{upload}/commit/", {"sha256": sha256} if sha256 else {})

    def delete(self, upload):
        return self.caller.send("DELETE", f"/api/uploads/{upload}/")


@pytest.fixture
def ada(make_user, as_):
    user = make_user()
    program = Program(as_(user))
    program.user = user
    return program


@pytest.fixture
def file(tensors_file):
    return tensors_file(w=[1.0, 2.0])


def refused(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.content
    return answer.json()["detail"]


# From the opening to the commit


def test_a_model_comes_in_in_chunks(ada, file):
    upload = ada.opened(file)
    first = ada.send(upload, 0, file[:10])
    second = ada.send(upload, 10, file[10:])

    answer = ada.commit(upload, digest(file))

    assert (first["Upload-Offset"], second["Upload-Offset"]) == ("10", str(len(file)))
    assert answer.status_code == 201
    assert answer.json()["detail"] == "Model Upload Accepted"
    assert answer["Location"].endswith(f"/api/models/{answer.json()['model_id']}/")
    assert ada.caller.get(answer["Location"]).getvalue() == file


def test_an_opening_says_where_the_upload_is_and_what_it_takes(ada, file, settings):
    answer = ada.open(file)

    shown = answer.json()
    assert answer["Location"].endswith(f"/api/uploads/{shown['id']}/")
    assert (shown["offset"], shown["size"], shown["max_chunk_bytes"]) == (0, len(file), settings.MAX_CHUNK_BYTES)
    assert shown["expires_at"]


def test_head_tells_where_an_upload_goes_on(ada, file):
    upload = ada.opened(file)
    ada.send(upload, 0, file[:7])

    answer = ada.caller.head(f"/api/uploads/{upload}/")

    assert (answer["Upload-Offset"], answer["Upload-Length"]) == ("7", str(len(file)))


def test_an_update_comes_in_in_chunks_and_answers_as_one_that_comes_at_once(make_scene, as_, tensors_file):
    scene = make_scene()
    file = tensors_file(w=[1.0, 2.0])
    ann = Program(as_(scene.participants[0]))
    fields = {"round": 0, "sample_size": 3, "metric_names": ["loss"], "metric_values": ["0.5"]}
    upload = ann.sent(file, target=f"{MODELS}{scene.model_id}/", fields=fields, sha256=digest(file))

    answer = ann.commit(upload)
    again = scene.send_update(scene.participants[0], file=file, sample_size=3)

    assert (answer.status_code, again.status_code) == (201, 200)
    assert answer.json() == again.json()
    assert Update.objects.get().num_examples == 3
    assert scene.training.model.metrics.get().value_float == 0.5


def test_the_same_file_for_the_same_target_is_the_same_upload(ada, file):
    first = ada.open(file, sha256=digest(file))
    ada.send(first.json()["id"], 0, file[:5])

    again = ada.open(file, sha256=digest(file).upper())

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["offset"] == 5


@pytest.mark.parametrize(
    "changes", [{"sha256": ""}, {"sha256": "0" * 64}, {"fields": {**FIELDS, "name": "other"}}, {"size": 9}]
)
def test_another_file_or_other_fields_are_another_upload(ada, file, changes):
    first = ada.opened(file, sha256=digest(file))

    assert ada.opened(file, **{"sha256": digest(file)} | changes) != first


def test_ones_unfinished_uploads_are_listed(ada, file, make_user, as_):
    mine = ada.opened(file)
    ada.commit(ada.sent(file), digest(file))
    Program(as_(make_user())).opened(file)

    assert [each["id"] for each in ada.caller.get("/api/uploads/").json()] == [mine]


def test_an_upload_can_be_thrown_away(ada, file, storage):
    upload = ada.sent(file)

    answer = ada.delete(upload)

    assert answer.status_code == 204
    assert list(storage.partials()) == []
    assert refused(ada.commit(upload, digest(file)), 404, "not_found") == f"Upload {upload} not found."


# What is refused as it is opened


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": "/api/trainings/"}, "target must be"),
        ({"target": "/api/models/x/y/"}, "target must be"),
        ({"target": "https://elsewhere/api/models/"}, "target must be"),
        ({"target": None}, "target"),
        ({"target": "/api/models/nonsense/"}, "Model nonsense not found."),
        ({"fields": {}}, "Missing required field: name"),
        ({"fields": "name"}, "fields must be a JSON object"),
        ({"size": -1}, "size"),
        ({"size": None}, "size"),
        ({"size": 2**80}, "size"),
        ({"sha256": "short"}, "sha256 must be 64 hexadecimal digits"),
        ({"fields": {**FIELDS, "type": "MEAN"}}, "a MEAN model has no file"),
        ({"fields": {**FIELDS, "type": "MODE"}}, "is not a valid choice"),
        ({"fields": {**FIELDS, "model_preprocessing_file": "x"}}, "models/<id>/preprocessing/"),
    ],
)
def test_what_would_be_refused_in_the_end_is_refused_at_the_opening(ada, file, changes, words):
    answer = ada.open(file, **changes)

    assert answer.status_code == 400
    assert words in answer.json()["detail"]
    assert Upload.objects.count() == 0


def test_an_update_that_may_not_come_is_refused_at_the_opening(make_scene, make_user, as_, ada, file):
    scene = make_scene()
    target = f"{MODELS}{scene.model_id}/"
    fields = {"round": 0, "sample_size": 3}
    ann = Program(as_(scene.participants[0]))

    refused(ada.open(file, target=target, fields=fields), 403, "permission_denied")
    refused(ann.open(file, target=target, fields=fields | {"round": 5}), 400, "round_not_open")
    refused(ann.open(file, target=target, fields=fields | {"sample_size": 0}), 400, "invalid_value")
    scene.send_update(scene.participants[0])
    refused(ann.open(file, target=target, fields=fields, sha256="0" * 64), 409, "already_submitted")


def test_an_update_to_a_model_that_nobody_trains_is_refused_at_the_opening(ada, file, make_model):
    target = f"{MODELS}{make_model(ada.user).pk}/"

    refused(ada.open(file, target=target, fields={"round": 0, "sample_size": 1}), 404, "not_found")


def test_a_file_over_the_limit_is_refused_at_the_opening(ada, file, settings):
    settings.MAX_UPLOAD_BYTES = 10

    assert "10" in refused(ada.open(file), 413, "too_large")


def test_nobody_has_more_uploads_under_way_than_allowed(ada, file, settings, make_user, as_):
    settings.MAX_OPEN_UPLOADS = 2
    first, _ = ada.opened(file), ada.opened(file)

    assert "2 unfinished uploads" in refused(ada.open(file), 409, "too_many_uploads")
    assert Program(as_(make_user())).open(file).status_code == 201
    ada.delete(first)
    assert ada.open(file).status_code == 201


def test_nobody_has_more_bytes_under_way_than_allowed(ada, file, settings):
    settings.MAX_OPEN_UPLOAD_BYTES = 2 * len(file)
    ada.commit(ada.sent(file), digest(file))
    ada.opened(file)
    ada.opened(file)

    refused(ada.open(file), 409, "too_many_uploads")


# Chunks


def test_a_chunk_for_another_place_is_told_the_true_offset(ada, file):
    upload = ada.opened(file)
    ada.send(upload, 0, file[:10])

    for offset in (0, 5, 11):
        answer = ada.send(upload, offset, file[offset:20])
        refused(answer, 409, "wrong_offset")
        assert answer["Upload-Offset"] == "10"


def test_of_a_chunk_with_another_digest_nothing_counts(ada, file, storage):
    upload = ada.opened(file)

    refused(ada.send(upload, 0, file[:10], **{"X-Content-SHA256": "0" * 64}), 422, "digest_mismatch")

    assert ada.offset(upload) == 0
    assert list((storage.root / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Upload-Offset", None),
        ("Upload-Offset", "-1"),
        ("Upload-Offset", "one"),
        ("Upload-Offset", ""),
        ("X-Content-SHA256", None),
        ("X-Content-SHA256", "short"),
    ],
)
def test_a_chunk_without_its_headers_is_refused_by_their_name(ada, file, header, value):
    answer = ada.send(ada.opened(file), 0, file, **{header: value})

    assert header in refused(answer, 400, "invalid_value")


def test_a_chunk_over_the_limit_is_refused(ada, file, settings):
    settings.MAX_CHUNK_BYTES = 10
    upload = ada.opened(file)

    refused(ada.send(upload, 0, file[:11]), 413, "too_large")

    assert ada.offset(upload) == 0
    assert ada.send(upload, 0, file[:10]).status_code == 204


def test_a_chunk_beyond_the_announced_size_is_refused(ada, file):
    upload = ada.opened(file)
    ada.send(upload, 0, file[:10])

    refused(ada.send(upload, 10, file[10:] + b"x"), 413, "too_large")

    assert ada.offset(upload) == 10


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x", "text/plain"])
def test_a_chunk_is_bytes_and_nothing_else(ada, file, kind):
    answer = ada.send(ada.opened(file), 0, file, kind=kind)

    refused(answer, 415, "unsupported_media_type")


def test_chunks_of_one_upload_that_come_at_once_count_once(transactional_db, ada, file):
    pk = ada.opened(file)
    chunks = [bytes([number]) * len(file) for number in range(8)]
    together, counted, refusals = threading.Barrier(len(chunks)), [], []

    def send(data):
        upload = Upload.objects.get(pk=pk)
        chunk = IncomingFile("chunk")
        chunk.append(data)
        together.wait()
        try:
            services.append(upload, chunk, offset=0)
            counted.append(data)
        except (WrongOffset, Unavailable) as refusal:
            refusals.append(refusal)
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=(data,)) for data in chunks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(counted), len(refusals)) == (1, len(chunks) - 1)
    assert Upload.objects.get().path.read_bytes() == counted[0]


def test_what_a_process_that_died_wrote_beyond_the_offset_does_not_count(ada, file):
    upload = ada.opened(file)
    ada.send(upload, 0, file[:10])
    with Upload.objects.get().path.open("ab") as torn:
        torn.write(b"half of a chunk that was longer than all that is still to come" * 10)

    ada.send(upload, 10, file[10:])

    assert ada.commit(upload, digest(file)).status_code == 201


# The commit


def test_a_commit_that_is_repeated_gets_the_same_answer_and_does_nothing(ada, file):
    upload = ada.sent(file)
    first = ada.commit(upload, digest(file))

    again = ada.commit(upload, digest(file))

    assert (again.status_code, again.content, again["Location"]) == (201, first.content, first["Location"])
    assert Model.objects.count() == 1


def test_a_commit_whose_answer_was_not_kept_finds_what_it_has_made(ada, file):
    upload = ada.sent(file)
    kept = Upload.objects.get()
    first = ada.commit(upload, digest(file))
    # As if the process had died between the two.
    Upload.objects.update(answer=None)
    kept.path.write_bytes(file)

    again = ada.commit(upload, digest(file))

    assert again.json() == first.json()
    assert Model.objects.count() == 1


def test_of_commits_at_once_one_does_the_work_and_the_others_are_told_to_come_again(transactional_db, ada, file):
    pk = ada.sent(file)
    begun, others_are_answered, delivered, answers = threading.Event(), threading.Event(), [], []

    def deliver(incoming):
        begun.set()
        others_are_answered.wait(timeout=30)
        delivered.append(incoming.sha256)
        return {"made": len(delivered)}

    def commit():
        try:
            answers.append(services.commit(Upload.objects.get(pk=pk), sha256=digest(file), deliver=deliver))
        except Unavailable as error:
            answers.append(error.code)
        finally:
            connection.close()

    first, *others = [threading.Thread(target=commit) for _ in range(4)]
    first.start()
    begun.wait(timeout=30)
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    others_are_answered.set()
    first.join()
    commit()

    assert delivered == [digest(file)]
    assert answers == ["unavailable"] * 3 + [{"made": 1}] * 2


def test_a_commit_with_bytes_missing_is_told_where_to_go_on(ada, file):
    upload = ada.opened(file)
    ada.send(upload, 0, file[:10])

    answer = ada.commit(upload, digest(file))

    refused(answer, 409, "wrong_offset")
    assert answer["Upload-Offset"] == "10"


@pytest.mark.parametrize(("at_opening", "at_commit"), [("0" * 64, None), (None, "0" * 64), ("true", "0" * 64)])
def test_a_commit_with_another_digest_is_refused_and_the_upload_stays(ada, file, at_opening, at_commit, storage):
    announced = {"true": digest(file), None: ""}.get(at_opening, at_opening)
    upload = ada.sent(file, sha256=announced)

    refused(ada.commit(upload, at_commit), 422, "digest_mismatch")

    assert ada.offset(upload) == len(file)
    assert Model.objects.count() == 0
    assert list((storage.root / "incoming").iterdir()) == []
    if at_opening != "0" * 64:
        assert ada.commit(upload, digest(file)).status_code == 201


def test_a_digest_is_needed_at_the_opening_or_at_the_commit(ada, file):
    assert "sha256 is missing" in refused(ada.commit(ada.sent(file)), 400, "invalid_value")


def test_a_file_that_is_no_model_is_refused_as_the_target_would(ada):
    upload = ada.sent(b"no model at all")

    answer = ada.commit(upload, digest(b"no model at all"))

    assert answer.status_code == 400
    assert Model.objects.count() == 0


def test_a_committed_upload_takes_no_more_chunks_and_has_no_file(ada, file, storage):
    upload = ada.sent(file)
    ada.commit(upload, digest(file))

    answer = ada.send(upload, len(file), b"")

    refused(answer, 409, "wrong_offset")
    assert "is committed" in answer.json()["detail"]
    assert answer["Upload-Offset"] == str(len(file))
    assert list(storage.partials()) == []


def test_an_empty_file_is_refused_as_the_target_would(ada):
    assert ada.commit(ada.opened(b""), digest(b"")).status_code == 400


# Other people


@pytest.mark.parametrize("who", ["stranger", "staff"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PATCH", "DELETE", "commit"])
def test_an_upload_is_nobody_elses_business(ada, file, make_user, as_, who, method):
    upload = ada.opened(file)
    other = as_(make_user(is_staff=who == "staff"))
    path = f"/api/uploads/{upload}/" + ("commit/" if method == "commit" else "")

    assert other.send("POST" if method == "commit" else method, path).status_code == 403


@pytest.mark.parametrize("upload", ["00000000-0000-0000-0000-000000000001", "nonsense"])
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE", "commit"])
def test_an_upload_that_is_not_there_is_named(ada, upload, method):
    path = f"/api/uploads/{upload}/" + ("commit/" if method == "commit" else "")

    answer = ada.caller.send("POST" if method == "commit" else method, path)

    assert refused(answer, 404, "not_found") == f"Upload {upload} not found."


# The sweeps


def test_an_upload_that_nobody_continues_expires(ada, file, settings, storage):
    old, young = ada.sent(file), ada.sent(file)
    then = timezone.now() - timedelta(seconds=settings.UPLOAD_EXPIRY_SECONDS + 1)
    Upload.objects.filter(pk=old).update(touched_at=then)

    sweeps.remove_expired_uploads()

    assert ada.commit(old, digest(file)).status_code == 404
    assert [path.name for path in storage.partials()] == [Upload.objects.get(pk=young).pk.hex]


def test_a_chunk_keeps_an_upload_alive(ada, file, settings):
    upload = ada.opened(file)
    Upload.objects.update(touched_at=timezone.now() - timedelta(seconds=settings.UPLOAD_EXPIRY_SECONDS - 60))

    ada.send(upload, 0, file)

    assert Upload.objects.get().expires_at > timezone.now() + timedelta(seconds=settings.UPLOAD_EXPIRY_SECONDS - 60)


def test_an_upload_that_expires_while_its_chunk_comes_is_gone(ada, file):
    ada.opened(file)
    upload = Upload.objects.get()
    chunk = IncomingFile("chunk")
    chunk.append(file)
    services.discard(Upload.objects.all())

    with pytest.raises(NotFound):
        services.append(upload, chunk, offset=0)


def test_files_without_an_upload_are_removed_once_they_are_old(ada, file, settings, storage):
    settings.ORPHAN_GRACE_SECONDS = 60
    ada.sent(file)
    kept = Upload.objects.get().path
    old, young = storage.partial("old"), storage.partial("young")
    for path in (old, young):
        path.touch()
    for path in (old, kept):
        os.utime(path, (0, 0))

    sweeps.remove_files_without_upload()

    assert sorted(storage.partials()) == sorted([kept, young])


def test_an_upload_that_has_lost_its_file_is_removed(ada, file, embedded_hub):
    lost, kept, done = ada.sent(file), ada.sent(file), ada.sent(file)
    ada.commit(done, digest(file))
    Upload.objects.get(pk=lost).path.unlink()

    sweeps.remove_uploads_without_file()

    assert {str(upload.pk) for upload in Upload.objects.all()} == {kept, done}


def test_a_server_that_starts_keeps_unfinished_uploads(ada, file, storage):
    upload = ada.opened(file)
    ada.send(upload, 0, file[:10])

    storage.prepare()
    ada.send(upload, 10, file[10:])

    assert ada.commit(upload, digest(file)).status_code == 201


# The raw body of an update


@pytest.fixture
def put(make_scene, as_, file):
    """A function: the update of a training's first participant as a raw body."""
    scene = make_scene()

    def send(
        data=file,
        *,
        kind="application/octet-stream",
        user=None,
        query="?round=0&sample_size=3",
        environment=None,
        **headers,
    ):
        path = f"/api/models/{scene.model_id}/update/{query}"
        return as_(user or scene.participants[0]).generic("PUT", path, data, kind, headers=headers, **environment or {})

    send.scene = scene
    return send


def test_a_raw_update_is_answered_as_a_form_is(put, file):
    first, again = put(), put()
    form = put.scene.send_update(put.scene.participants[0], file=file)

    assert (first.status_code, again.status_code, form.status_code) == (201, 200, 200)
    assert first.json() == again.json() == form.json()
    assert first["Location"] == form["Location"]
    assert Update.objects.get().num_examples == 3


def test_other_raw_bytes_are_refused(put, tensors_file):
    put()

    refused(put(tensors_file(w=[3.0, 4.0])), 409, "already_submitted")


def test_a_raw_update_brings_its_metrics_in_the_query(put):
    query = "?round=0&sample_size=3&metric_names=loss&metric_values=0.5&metric_names=note&metric_values=fine"

    put(query=query)

    metrics = {
        each.key: each.value_float or bytes(each.value_binary) for each in put.scene.training.model.metrics.all()
    }
    assert metrics == {"loss": 0.5, "note": b"fine"}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?sample_size=3", "Missing required field: round"),
        ("?round=0", "Missing required field: sample_size"),
        ("?round=x&sample_size=3", "round"),
        ("?round=0&sample_size=0", "sample_size"),
        ("?round=0&sample_size=3&metric_names=a", "same length"),
    ],
)
def test_a_raw_update_with_a_wrong_query_is_refused(put, query, words):
    assert words in refused(put(query=query), 400, "invalid_value")


def test_a_raw_update_of_a_stranger_is_refused(put, make_user):
    refused(put(user=make_user()), 403, "permission_denied")


def test_a_raw_update_for_another_round_is_refused(put):
    refused(put(query="?round=1&sample_size=3"), 400, "round_not_open")


def test_a_raw_update_with_another_digest_is_refused_and_leaves_nothing(put, storage):
    refused(put(**{"X-Content-SHA256": "0" * 64}), 422, "digest_mismatch")

    assert Update.objects.count() == 0
    assert list((storage.root / "incoming").iterdir()) == []


def test_a_raw_update_that_is_shorter_than_announced_is_refused(put, file):
    short = {"wsgi.input": io.BytesIO(file[:-1]), "CONTENT_LENGTH": str(len(file))}

    refused(put(environment=short), 400, "incomplete_request")

    assert Update.objects.count() == 0


def test_a_raw_update_over_the_limit_is_refused(put, settings, file):
    settings.MAX_UPLOAD_BYTES = len(file) - 1

    refused(put(), 413, "too_large")


def test_a_raw_update_to_an_unknown_model_is_not_found(ada, file):
    answer = ada.caller.generic("PUT", "/api/models/x/update/?round=0&sample_size=1", file, "application/octet-stream")

    assert refused(answer, 404, "not_found") == "Model x not found."


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_raw_update_is_bytes_and_nothing_else(put, kind):
    refused(put(kind=kind), 415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["", "application/octet-stream; x=y", "APPLICATION/OCTET-STREAM"])
def test_a_raw_update_needs_no_content_type_and_may_spell_it_as_it_likes(put, kind):
    assert put(kind=kind).status_code == 201


# Content-Encoding


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "identity, gzip", "nonsense"])
@pytest.mark.parametrize(("method", "path"), [("POST", "models/"), ("PATCH", "uploads/x/"), ("GET", "notifications/")])
def test_a_packed_body_is_refused_wherever_it_comes(ada, encoding, method, path):
    answer = ada.caller.generic(method, f"/api/{path}", b"\x1f\x8b", headers={"Content-Encoding": encoding})

    refused(answer, 415, "unsupported_encoding")
    assert answer["Accept-Encoding"] == "identity"


def test_a_body_may_say_that_it_comes_as_it_is(put):
    assert put(**{"Content-Encoding": "Identity"}).status_code == 201
