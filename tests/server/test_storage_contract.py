"""What a folder and an S3-compatible store promise alike."""

from __future__ import annotations

import hashlib
import os
import threading
import time

import numpy as np
import pytest

from folkmoot.aggregation import Update, aggregate_files, find_strategy
from folkmoot.server.storage.folder import FolderStorage
from folkmoot.tensors import write_tensors

HOUR = 3600


class FolderBehind:
    """What is in a folder, looked at and meddled with behind the hub's back."""

    def __init__(self, storage):
        self._storage = storage

    def digests(self):
        return sorted(blob.name for blob in self._storage.root.glob("??/*"))

    def spoil(self, sha256):
        self._storage.path(sha256).write_bytes(b"other")

    def delete(self, sha256):
        self._storage.path(sha256).unlink()

    def age(self, sha256, seconds):
        then = time.time() - seconds
        os.utime(self._storage.path(sha256), (then, then))


@pytest.fixture(params=["folder", "s3"])
def kept(request, tmp_path):
    """The storage, and what is behind it."""
    if request.param == "folder":
        storage = FolderStorage(tmp_path / "blobs")
        storage.prepare()
        return storage, FolderBehind(storage)
    return request.getfixturevalue("s3_storage"), request.getfixturevalue("bucket")


@pytest.fixture
def storage(kept):
    return kept[0]


@pytest.fixture
def behind(kept):
    return kept[1]


@pytest.fixture
def adopt(storage):
    """A function: bytes come in and are adopted; their digest."""

    def write(data=b"bytes"):
        path, digest = storage.new_incoming(), hashlib.sha256(data).hexdigest()
        path.write_bytes(data)
        storage.adopt(path, digest)
        assert not path.exists()
        return digest

    return write


def read(storage, digest):
    with storage.file(digest) as path:
        return path.read_bytes()


def removed(storage, *, needed=(), older_than=60):
    storage.remove_orphans(older_than=older_than, needed=lambda: set(needed))


def test_a_blob_is_found_under_its_digest(storage, adopt):
    digest = adopt()

    assert read(storage, digest) == b"bytes"
    assert storage.is_intact(digest)


def test_an_empty_blob_is_a_blob(storage, adopt):
    assert read(storage, adopt(b"")) == b""


def test_what_was_never_adopted_is_not_found(storage):
    with pytest.raises(FileNotFoundError), storage.file("0" * 64):
        pass
    assert not storage.is_intact("0" * 64)


def test_what_is_opened_stays_readable_after_the_block(storage, adopt):
    with storage.file(adopt()) as path:
        file = path.open("rb")

    with file:
        assert file.read() == b"bytes"


def test_many_who_bring_the_same_bytes_at_once_are_all_served(storage, adopt):
    together, failed = threading.Barrier(8), []

    def come():
        together.wait()
        try:
            adopt()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert read(storage, hashlib.sha256(b"bytes").hexdigest()) == b"bytes"
    assert list((storage.root / "incoming").iterdir()) == []


def test_a_damaged_blob_is_known_and_written_anew_when_it_comes_again(storage, behind, adopt):
    damaged, whole = adopt(b"damaged"), adopt(b"whole")
    behind.spoil(damaged)
    forget_copies(storage)

    assert [storage.is_intact(damaged), storage.is_intact(whole)] == [False, True]
    for digest in (damaged, whole, "0" * 64):
        storage.distrust(digest)
    adopt(b"damaged")

    assert read(storage, damaged) == b"damaged"
    assert storage.is_intact(damaged)


def test_a_blob_that_nobody_needs_is_removed_once_it_is_old(storage, behind, adopt):
    old, young, needed = adopt(b"old"), adopt(b"young"), adopt(b"needed")
    for digest in (old, needed):
        behind.age(digest, HOUR)

    removed(storage, needed=[needed])

    assert behind.digests() == sorted([young, needed])


def test_bytes_that_are_adopted_again_are_young_again(storage, behind, adopt):
    behind.age(adopt(), HOUR)
    digest = adopt()

    removed(storage)

    assert read(storage, digest) == b"bytes"
    assert behind.digests() == [digest]


def test_a_blob_that_is_adopted_again_while_the_sweep_asks_who_needs_it_stays(storage, behind, adopt):
    digest = adopt()
    behind.age(digest, HOUR)

    def needed():
        adopt()
        return set()

    storage.remove_orphans(older_than=60, needed=needed)

    forget_copies(storage)
    assert read(storage, digest) == b"bytes"


def test_nobody_is_asked_what_is_needed_where_nothing_is_old(storage, adopt):
    adopt()

    storage.remove_orphans(older_than=60, needed=lambda: pytest.fail("asked"))


@pytest.mark.parametrize("place", ["cached", "far"])
def test_an_aggregation_reads_blobs_wherever_they_are(storage, tmp_path, adopt, place):
    def file_of(number):
        tensors = {"a": np.full((300, 1000), number, "f4"), "b": np.arange(70_000, dtype="f4") * number}
        write_tensors(tmp_path / "model", tensors)
        return (tmp_path / "model").read_bytes()

    digests = [adopt(file_of(number)) for number in (1, 2, 6)]
    if place == "far":
        forget_copies(storage)
    base, expected = tmp_path / "base", tmp_path / "expected"
    base.write_bytes(file_of(0))
    expected.write_bytes(file_of(3))

    sources = storage.sources(digests)
    updates = [Update(f"{number}", source, 10) for number, source in enumerate(sources)]
    report = aggregate_files(find_strategy("FedAvg", {}), base, updates, tmp_path / "next")

    assert (tmp_path / "next").read_bytes() == expected.read_bytes()
    assert report.num_bytes_read == 3 * base.stat().st_size


def test_the_source_of_a_blob_that_is_gone_is_a_path_where_nothing_is(storage, behind, adopt):
    gone, there = adopt(b"gone"), adopt(b"there")
    behind.delete(gone)
    forget_copies(storage)

    first, second = storage.sources([gone, there])

    assert not first.exists()
    assert second != first


def test_a_storage_that_works_says_so_and_leaves_nothing_behind(storage, behind):
    assert storage.answers()
    assert "can be written" in storage.check()
    assert behind.digests() == []


def test_what_came_half_way_is_cleared_away_and_what_was_adopted_stays(storage, adopt):
    digest = adopt()
    half = storage.new_incoming()
    half.write_bytes(b"half")

    storage.remove_leftovers()

    assert not half.exists()
    assert read(storage, digest) == b"bytes"


def forget_copies(storage):
    """As on another machine, which has fetched nothing yet."""
    for copy in (storage.root / "cache").glob("*.*"):
        copy.unlink()
