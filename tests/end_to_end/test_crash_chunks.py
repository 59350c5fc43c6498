"""R1 for uploads in chunks: the server is killed at every point, and the client goes on where the upload is."""

from __future__ import annotations

import httpx2
import pytest
from chunks import Upload
from harness import as_file, initial_model, wait_until
from invariants import read

CHUNK = 64
# The second chunk does not count yet; at the last point the first does, although nobody was told.
IN_A_CHUNK = (
    "upload.before_stream:2",
    "upload.mid_stream:2",
    "upload.chunk_received:2",
    "upload.chunk_written:2",
    "upload.chunk_counted:1",
)
# At `delivered` the model is made, and the upload does not say so yet.
IN_THE_COMMIT = ("upload.after_blob", "upload.delivered", "upload.before_response")

on_both = pytest.mark.parametrize("backend", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def file():
    return as_file(initial_model())


def models(world):
    return [row["id"] for row in read(world.place, "SELECT id FROM registry_model") if row["id"] != world.model_id]


def partial_files(world):
    return list((world.place.blobs / "partial").iterdir())


@on_both
@pytest.mark.parametrize("point", IN_A_CHUNK)
def test_an_upload_goes_on_with_the_chunk_that_was_cut(world, file, point):
    world.server.start(fault=point)
    upload = Upload.of_model(world, len(file))
    with pytest.raises(httpx2.TransportError):
        upload.send_from(0, file, chunk=CHUNK)
    world.server.wait_for_death()
    world.server.start()

    offset = upload.offset()
    upload.send_from(offset, file, chunk=CHUNK)
    answer = upload.commit(file)

    assert offset == CHUNK
    assert answer.status_code == 201
    assert world.call(world.actor, "GET", f"/api/models/{answer.json()['model_id']}/").content == file
    assert (partial_files(world), world.place.incoming()) == ([], [])


@on_both
@pytest.mark.parametrize("point", IN_THE_COMMIT)
def test_a_commit_that_was_cut_is_repeated_and_makes_one_model(world, file, point):
    world.server.start(fault=point)
    upload = Upload.of_model(world, len(file))
    upload.send_from(0, file, chunk=CHUNK)
    with pytest.raises(httpx2.TransportError):
        upload.commit(file)
    world.server.wait_for_death()
    world.server.start()

    first, again = upload.commit(file), upload.commit(file)

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert models(world) == [first.json()["model_id"]]
    assert (partial_files(world), world.place.incoming()) == ([], [])


@pytest.mark.parametrize("point", ["upload.before_commit", "upload.after_commit", "upload.delivered"])
def test_an_update_whose_commit_was_cut_counts_once(world, point):
    ann, ben = world.participants(2)
    world.server.start(fault=point)
    training = world.started([ann, ben], rounds=1, tests="never")
    update = world.update_of(ann, training, 0)
    upload = Upload.of_update(world, update)
    upload.send_from(0, update.file, chunk=CHUNK)
    with pytest.raises(httpx2.TransportError):
        upload.commit(update.file)
    world.server.wait_for_death()
    world.server.start()

    answer = upload.commit(update.file)

    assert answer.is_success
    assert [row["id"] for row in read(world.place, "SELECT id FROM trainings_update")] == [answer.json()["update_id"]]
    assert world.training(training)["local_models_arrived"] == 1


@pytest.mark.parametrize("settings", [{"FOLKMOOT_UPLOAD_EXPIRY_SECONDS": "1"}])
def test_an_upload_that_nobody_continues_is_removed(world, file):
    world.server.start()
    upload = Upload.of_model(world, len(file))
    upload.send(file[:CHUNK], at=0)

    wait_until(lambda: upload.call("GET").status_code == 404, "the upload to expire")

    wait_until(lambda: not partial_files(world), "its file to be removed")
