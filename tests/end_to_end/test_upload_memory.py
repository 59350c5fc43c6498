"""One upload takes a few MB of the server's memory, however large it is and however it comes."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from chunks import BYTES, Upload, put
from harness import as_file, initial_model

SIZE = 192 * 2**20
CHUNK = 48 * 2**20
ALLOWED = 16 * 2**20


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file of zeros in one tensor, none of which is on the disk."""
    path = tmp_path_factory.mktemp("large") / "zeros"
    header = json.dumps({"w": {"dtype": "F32", "shape": [SIZE // 4], "data_offsets": [0, SIZE]}}).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + SIZE)
    return path


@contextmanager
def few_megabytes(world):
    """See, all the time, how much memory the server has for itself; files that it maps are the system's."""
    status = Path(f"/proc/{world.server.process.pid}/status")

    def used():
        return int(status.read_text().split("RssAnon:")[1].split()[0]) * 1024

    over, most = threading.Event(), [used()]

    def watch():
        while not over.wait(0.005):
            most.append(max(most[-1], used()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    assert most[-1] - most[0] < ALLOWED


@pytest.fixture
def warm(world):
    """A running server that has taken in small files in every way, and so has loaded all it needs."""
    world.server.start()
    file = as_file(initial_model())
    upload = Upload.of_model(world, len(file))
    upload.send(file, at=0)
    upload.commit(file)
    upload_form(world, file)
    ann, ben = world.participants(2)
    put(world, world.update_of(ann, world.started([ann, ben], rounds=1, tests="never"), 0))
    return world


def upload_form(world, file):
    form = {"name": "m", "description": "d"}
    answer = world.call(world.actor, "POST", "/api/models/", data=form, files={"model_file": ("m", file)}, timeout=120)
    assert answer.status_code == 201, answer.text
    return answer.json()["model_id"]


def test_a_large_model_in_a_form(warm, large):
    with few_megabytes(warm), large.open("rb") as file:
        upload_form(warm, file)


def test_a_large_model_in_chunks(warm, large):
    size = large.stat().st_size
    upload = Upload.of_model(warm, size)
    with few_megabytes(warm), large.open("rb") as file:
        for start in range(0, size, CHUNK):
            assert upload.send(file.read(CHUNK), at=start).status_code == 204
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        answer = upload.call("POST", "commit/", json={"sha256": digest}, timeout=120)
    assert answer.status_code == 201


def test_a_large_update_as_a_raw_body(warm, large):
    with large.open("rb") as file:
        warm.model_id = upload_form(warm, file)
    ann, ben = warm.participants(2)
    training = warm.started([ann, ben], rounds=1, tests="never")
    query = {"round": 0, "sample_size": 1}
    path = f"/api/models/{warm.training(training)['model']}/update/"

    with few_megabytes(warm), large.open("rb") as file:
        answer = warm.call(ann, "PUT", path, params=query, content=file, headers=BYTES, timeout=120)

    assert answer.status_code == 201
