"""Blobs: whole or not at all, under the digest of their bytes, as long as somebody needs them."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from folkmoot.server.registry.models import Checkpoint
from folkmoot.server.storage.age import old_ones
from folkmoot.server.storage.folder import FolderStorage
from folkmoot.server.trainings import sweeps
from folkmoot.server.trainings.models import Update

HOUR = 3600


@pytest.fixture
def come_in(storage):
    """A function: bytes on their way in, and their digest."""

    def write(data=b"bytes"):
        path = storage.new_incoming()
        path.write_bytes(data)
        return path, hashlib.sha256(data).hexdigest()

    return write


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_blob_is_found_under_its_digest(storage, come_in):
    path, digest = come_in()

    storage.adopt(path, digest)

    assert storage.path(digest).read_bytes() == b"bytes"
    assert not path.exists()


def test_a_blob_that_is_distrusted_is_removed_if_it_is_damaged(storage, come_in):
    whole, damaged = come_in(b"whole"), come_in(b"damaged")
    for path, digest in (whole, damaged):
        storage.adopt(path, digest)
    storage.path(damaged[1]).write_bytes(b"other")

    for digest in (whole[1], damaged[1], "0" * 64):
        storage.distrust(digest)

    assert [blob.name for blob in storage.root.glob("??/*")] == [whole[1]]


def test_an_old_file_that_is_adopted_is_young(storage, come_in):
    path, digest = come_in()
    age(path, HOUR)

    storage.adopt(path, digest)

    storage.remove_orphans(older_than=60, needed=set)
    assert storage.path(digest).exists()


def test_a_folder_is_made_where_there_is_none(tmp_path):
    storage = FolderStorage(tmp_path / "not" / "there" / "yet")

    storage.prepare()

    assert storage.new_incoming().parent.is_dir()


# The sweep


@pytest.fixture
def blob(storage, come_in):
    """A function that stores a blob of that age."""

    def store(data, *, seconds):
        path, digest = come_in(data)
        storage.adopt(path, digest)
        age(storage.path(digest), seconds)
        return storage.path(digest)

    return store


@pytest.mark.django_db
def test_a_blob_that_nobody_needs_is_removed_once_it_is_old(blob, settings):
    settings.ORPHAN_GRACE_SECONDS = HOUR
    old, young = blob(b"old", seconds=HOUR + 60), blob(b"young", seconds=HOUR - 60)

    sweeps.remove_orphaned_blobs()

    assert not old.exists()
    assert young.exists()


@pytest.mark.django_db
def test_what_a_model_a_checkpoint_or_an_update_needs_is_kept_however_old(
    make_scene, make_model, make_user, storage, work, settings
):
    settings.ORPHAN_GRACE_SECONDS = 1
    actor = make_user()
    npz = io.BytesIO()
    np.savez(npz, w=np.zeros(2, "f4"))
    model = make_model(actor, file=npz.getvalue())
    scene = make_scene(actor=actor, model=model, options={"tests": "never"})
    for number, participant in enumerate(scene.participants):
        scene.send_update(participant, w=[number, 3])
    work()
    blobs = list(storage.root.glob("??/*"))
    for each in blobs:
        age(each, HOUR)

    sweeps.remove_orphaned_blobs()

    # The file as it was uploaded, its tensors, two updates, the next checkpoint.
    needed = {
        model.template_sha256,
        *Checkpoint.objects.values_list("sha256", flat=True),
        *Update.objects.values_list("sha256", flat=True),
    }
    assert {each.name for each in blobs if each.exists()} == needed
    assert len(needed) == 5


@pytest.mark.django_db
def test_updates_of_a_deleted_training_are_removed_in_time(make_scene, storage, as_, settings):
    settings.ORPHAN_GRACE_SECONDS = 1
    scene = make_scene()
    scene.send_update(scene.participants[0])
    digest = Update.objects.get().sha256
    as_(scene.actor).delete(f"/api/trainings/{scene.id}/")
    age(storage.path(digest), HOUR)

    sweeps.remove_orphaned_blobs()

    assert not storage.path(digest).exists()


# A full disk


FULL_DISK = """
import io, resource, sys
from pathlib import Path

import numpy as np
import safetensors.numpy

from folkmoot.server.process import prepare

data_dir = Path(sys.argv[1])
prepare(data_dir)

from django.test import Client

from folkmoot.server.accounts.services import register
from folkmoot.server.storage import get_storage

get_storage().prepare()
token = register(username="ada", password=None)[1]
ada = Client(headers={"Authorization": f"Token {token}", "Host": "localhost"}, raise_request_exception=False)


def upload(data):
    file = io.BytesIO(data)
    file.name = "model"
    return ada.post("/api/models/", {"name": "m", "description": "d", "model_file": file})


def npz(array):
    file = io.BytesIO()
    np.savez_compressed(file, w=array)
    return file.getvalue()


small = upload(safetensors.numpy.save({"w": np.zeros(4, "f4")}))
# No file may grow beyond this: the same refusal that a full disk gives, without a disk of our own.
limit = 8 * 2**20 - 2000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
cut = np.zeros(2**21 - 250, dtype="f4")
large = np.arange(9 * 2**18, dtype="f4")
uploads = [safetensors.numpy.save({"w": large}), safetensors.numpy.save({"w": cut}), npz(large)]
for answer in (small, *map(upload, uploads)):
    print(answer.status_code, answer.json().get("code"), answer.headers.get("Retry-After"))
print(ada.get(f"/api/models/{small.json()['model_id']}/").status_code)
print(len(ada.get("/api/models/").json()), len(list((data_dir / "blobs" / "incoming").iterdir())))
"""


def test_a_full_disk_refuses_an_upload_leaves_nothing_behind_and_goes_on_reading(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "data"], capture_output=True, text=True, timeout=60, check=False
    )

    assert run.stdout.splitlines() == [
        "201 None None",
        # What came does not fit.
        "507 storage_full 2",
        # Nor does the last piece of this, of which a part does.
        "507 storage_full 2",
        # What came does, but not its tensors.
        "507 storage_full 2",
        "200",
        "1 0",
    ], run.stderr


def test_a_file_that_goes_while_old_ones_are_looked_for_is_passed_over(tmp_path):
    (tmp_path / "there").touch()

    assert [*old_ones([tmp_path / "gone", tmp_path / "there"], 0)] == [tmp_path / "there"]
