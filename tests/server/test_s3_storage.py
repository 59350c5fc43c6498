"""Blobs in an S3-compatible store: over a line that breaks, and through a cache with a limit."""

from __future__ import annotations

import hashlib
import os
import threading

import pytest

from folkmoot.errors import Misconfigured, Unavailable
from folkmoot.server.storage import bucket as bucket_module
from folkmoot.server.storage.address import S3Address, parse_address
from folkmoot.server.storage.read_ahead import ReadAhead
from folkmoot.server.storage.s3 import S3Storage
from object_store import (
    BrokenLine,
    completes_with_an_error,
    fails,
    hangs_up,
    is_silent,
    tears_what_is_put,
    tears_what_is_read,
    times,
    whole,
)

ANY_FAULT = pytest.mark.parametrize("fault", [fails, is_silent, hangs_up])


@pytest.fixture
def line(s3_store):
    with BrokenLine(s3_store) as line:
        yield line


@pytest.fixture
def make_storage(bucket, tmp_path, aws_credentials):
    def make(*, endpoint=None, folder="s3", cache_bytes=2**30, seconds=10):
        address = parse_address(bucket.url(endpoint=endpoint))
        storage = S3Storage(tmp_path / folder, address, cache_bytes=cache_bytes, seconds=seconds)
        storage.prepare()
        return storage

    return make


def adopt(storage, data=b"bytes"):
    path, digest = storage.new_incoming(), hashlib.sha256(data).hexdigest()
    path.write_bytes(data)
    storage.adopt(path, digest)
    return digest


def read(storage, digest):
    with storage.file(digest) as path:
        return path.read_bytes()


# Faults


@pytest.mark.parametrize("fault", [*ANY_FAULT.args[1], tears_what_is_put])
def test_what_cannot_be_put_is_unavailable_in_bounded_time_and_no_blob(make_storage, line, bucket, fault):
    storage = make_storage(endpoint=line.endpoint, seconds=0.2)
    line.fault = fault

    with pytest.raises(Unavailable, match="the file store"):
        adopt(storage)

    assert bucket.keys() == []
    assert not list((storage.root / "cache").glob("*.*"))


@ANY_FAULT
def test_what_cannot_be_fetched_is_unavailable_and_leaves_nothing_half_way(make_storage, line, fault):
    digest = adopt(make_storage(folder="other"))
    storage = make_storage(endpoint=line.endpoint, seconds=0.2)
    line.fault = fault

    with pytest.raises(Unavailable, match="the file store"), storage.file(digest):
        pass

    assert list((storage.root / "incoming").iterdir()) == []
    line.fault = whole
    assert read(storage, digest) == b"bytes"


def test_an_answer_that_breaks_off_is_no_file(make_storage, line):
    digest = adopt(make_storage(folder="other"), b"x" * 100_000)
    storage = make_storage(endpoint=line.endpoint, seconds=0.5)
    line.fault = lambda request: tears_what_is_read(request) if digest in request.path.partition("?")[0] else None

    with pytest.raises(Unavailable), storage.file(digest):
        pass

    line.fault = whole
    assert read(storage, digest) == b"x" * 100_000


@pytest.mark.parametrize("fault", [fails, hangs_up, tears_what_is_read])
def test_a_fault_that_passes_is_not_noticed_by_who_reads_in_stretches(make_storage, line, fault):
    data = os.urandom(50_000)
    digest = adopt(make_storage(folder="other"), data)
    (source,) = make_storage(endpoint=line.endpoint, seconds=0.5).sources([digest])
    line.fault = times(2, fault)

    buffer = bytearray(1000)
    source.read_into(500, memoryview(buffer))

    assert buffer == data[500:1500]


def test_bytes_that_are_not_those_of_their_digest_are_never_handed_out(make_storage, bucket):
    digest = adopt(make_storage(folder="other"))
    bucket.spoil(digest)

    with pytest.raises(Unavailable, match="other bytes than were put there"), make_storage().file(digest):
        pass


def test_a_file_of_many_parts_is_the_same_file(make_storage, monkeypatch):
    monkeypatch.setattr(bucket_module, "PART_BYTES", 2**18)
    data = os.urandom(600_000)

    digest = adopt(make_storage(folder="other"), data)

    assert read(make_storage(), digest) == data


def test_a_completion_that_is_answered_with_200_and_an_error_is_none(make_storage, line, bucket, monkeypatch):
    monkeypatch.setattr(bucket_module, "PART_BYTES", 2**18)
    storage = make_storage(endpoint=line.endpoint)
    line.fault = completes_with_an_error

    with pytest.raises(Unavailable, match="InternalError"):
        adopt(storage, bytes(300_000))

    assert bucket.keys() == []
    assert bucket.unfinished() == 0


def test_a_completion_that_fails_once_is_tried_again(make_storage, line, bucket, monkeypatch):
    monkeypatch.setattr(bucket_module, "PART_BYTES", 2**18)
    storage = make_storage(endpoint=line.endpoint)
    left = [1]

    def once(request):
        if left and "uploadId" in request.path and request.command == "POST":
            left.pop()
            completes_with_an_error(request)

    line.fault = once

    digest = adopt(storage, bytes(300_000))

    assert bucket.digests() == [digest]


@pytest.mark.parametrize(("begun", "left"), [("2010-11-10", 0), ("2999-11-10", 1)])
def test_parts_of_what_was_never_completed_are_removed_in_time(make_storage, line, bucket, begun, left):
    bucket.begin_parts("a/hub/blobs/half")
    # The store of the tests says of all uploads that they began in 2010.
    line.fault = lambda request: request.pass_on(lambda answer: answer.replace(b"2010-11-10", begun.encode()))

    make_storage(endpoint=line.endpoint).remove_orphans(older_than=60, needed=set)

    assert bucket.unfinished() == left


def test_a_store_that_is_not_there_does_not_answer(make_storage, line):
    storage = make_storage(endpoint=line.endpoint, seconds=0.2)
    line.fault = is_silent

    assert not storage.answers()
    with pytest.raises(Unavailable):
        storage.check()


def test_a_bucket_that_is_not_there_is_named_as_the_fault(make_storage, s3_store, tmp_path):
    address = S3Address("nothere", endpoint=s3_store.endpoint, region="us-east-1")
    storage = S3Storage(tmp_path, address, cache_bytes=1, seconds=5)

    with pytest.raises(Unavailable, match="NoSuchBucket"):
        storage.check()


# What is removed


def test_copies_of_what_is_needed_go_but_for_the_newest(make_storage, bucket):
    storage = make_storage()
    for seconds in (300, 200, 100):
        digest = adopt(storage)
        bucket.age(digest, seconds)

    storage.remove_orphans(older_than=60, needed=lambda: {digest})

    assert bucket.digests() == [digest]
    assert read(make_storage(folder="other"), digest) == b"bytes"


def test_a_removal_that_the_store_carries_out_late_takes_nothing_that_came_since(make_storage, line, bucket):
    storage = make_storage(endpoint=line.endpoint)
    bucket.age(adopt(storage), 3600)
    held = []

    def hold_deletions(request):
        if request.command == "DELETE":
            held.append(request.path)
            request.answer(204)

    line.fault = hold_deletions
    storage.remove_orphans(older_than=60, needed=set)
    digest = adopt(storage)
    bucket.delete(held[0].partition("?")[0].rpartition("/")[2])

    assert read(make_storage(folder="other"), digest) == b"bytes"


# The cache


def test_a_blob_is_fetched_once(make_storage, line):
    digest = adopt(make_storage(folder="other"))
    storage = make_storage(endpoint=line.endpoint)
    read(storage, digest)
    line.seen.clear()

    assert read(storage, digest) == b"bytes"
    assert line.seen == []


def test_the_cache_stays_within_its_limit_and_keeps_what_was_used_last(make_storage):
    storage = make_storage(cache_bytes=2500)
    first, second = adopt(storage, b"1" * 1000), adopt(storage, b"2" * 1000)
    age_copy(storage, first, 20)
    age_copy(storage, second, 10)
    read(storage, first)

    third = adopt(storage, b"3" * 1000)

    assert copies(storage) == {first, third}
    assert read(storage, second) == b"2" * 1000


def test_what_is_in_use_stays_readable_when_it_has_to_make_room(make_storage):
    storage = make_storage(cache_bytes=1500)
    first = adopt(storage, b"1" * 1000)
    age_copy(storage, first, 10)

    with storage.file(first) as path:
        age_copy(storage, first, 10)
        second = adopt(storage, b"2" * 1000)

        assert copies(storage) == {second}
        assert path.read_bytes() == b"1" * 1000


def age_copy(storage, digest, seconds):
    (copy,) = (storage.root / "cache").glob(f"{digest}.*")
    then = copy.stat().st_mtime - seconds
    os.utime(copy, (then, then))


def copies(storage):
    return {copy.stem for copy in (storage.root / "cache").glob("*.*")}


# Reading ahead


class Far:
    """A file that is far away, and what was asked of it."""

    def __init__(self, data):
        self.data = data
        self.asked = []

    def read_into(self, offset, buffer):
        self.asked.append((offset, len(buffer)))
        buffer[:] = self.data[offset : offset + len(buffer)]


class AtOnce:
    """Fetches when it is told to."""

    def submit(self, call, *arguments):
        from concurrent.futures import Future

        done = Future()
        try:
            done.set_result(call(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done


def test_small_reads_in_order_are_few_requests_each_ahead_of_its_use():
    far = Far(bytes(range(100)))
    source = ReadAhead(far.read_into, 100, stretch=40, readers=AtOnce())
    got = bytearray()

    for offset in range(0, 100, 10):
        buffer = bytearray(10)
        source.read_into(offset, memoryview(buffer))
        got += buffer

    assert got == far.data
    assert far.asked == [(0, 40), (40, 40), (80, 20)]


def test_what_lies_across_two_stretches_is_read_as_one():
    far = Far(bytes(range(100)))
    buffer = bytearray(30)

    ReadAhead(far.read_into, 100, stretch=40, readers=AtOnce()).read_into(25, memoryview(buffer))

    assert buffer == far.data[25:55]


def test_without_room_for_stretches_each_read_is_a_request():
    far = Far(bytes(range(100)))
    buffer = bytearray(30)

    ReadAhead(far.read_into, 100, stretch=0, readers=AtOnce()).read_into(25, memoryview(buffer))

    assert (buffer, far.asked) == (far.data[25:55], [(25, 30)])


def test_what_ends_too_early_is_an_early_end():
    with pytest.raises(EOFError):
        ReadAhead(Far(bytes(100)).read_into, 100, stretch=40, readers=AtOnce()).read_into(95, memoryview(bytearray(6)))


def test_what_could_not_be_fetched_once_is_fetched_again():
    far, failing = Far(bytes(range(100))), threading.Event()
    failing.set()

    def read_into(offset, buffer):
        if failing.is_set():
            raise Unavailable("not now")
        far.read_into(offset, buffer)

    source = ReadAhead(read_into, 100, stretch=50, readers=AtOnce())
    buffer = bytearray(10)
    with pytest.raises(Unavailable):
        source.read_into(0, memoryview(buffer))
    failing.clear()
    source.read_into(0, memoryview(buffer))
    source.read_into(60, memoryview(buffer))

    assert buffer == far.data[60:70]


# The address


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://bucket/x", "begins with 'https'"),
        ("s3:///prefix", "names no bucket"),
        ("s3://bucket?colour=blue", "'colour'"),
        ("s3://bucket?endpoint=minio:9000", "expected https://host"),
        ("s3://key:secret@bucket", "must not hold credentials"),
        ("file://host/x", "names no folder"),
        ("file:///", "names no folder"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_and_its_secrets_are_not_repeated(url, said):
    with pytest.raises(Misconfigured, match=said) as refused:
        parse_address(url)

    assert "secret" not in refused.value.message


def test_an_address_names_bucket_prefix_endpoint_and_region():
    url = "s3://models/of/us/?endpoint=https://store.example:9000&region=eu-1"

    assert parse_address(url) == S3Address("models", "of/us/", "https://store.example:9000", "eu-1")
    assert parse_address("s3://models") == S3Address("models")
