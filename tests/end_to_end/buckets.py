"""Hubs whose files are in an S3-compatible store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness import Place

from object_store import CREDENTIALS, Bucket


def storage_settings(url: str, **settings: str) -> dict[str, str]:
    """For the processes of such a hub."""
    return {"FOLKMOOT_STORAGE_URL": url, **CREDENTIALS, **settings}


@contextmanager
def files_in(bucket: Bucket, place: Place) -> Iterator[None]:
    """The place's files are in the bucket, and nowhere else; in the end they are where the invariants look."""
    place.secrets.append(CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    blobs = list(place.blobs.glob("??/*"))
    assert blobs
    for blob in blobs:
        bucket.put(f"a/hub/blobs/{blob.name}.template", blob.read_bytes())
        blob.unlink()
    yield
    assert list(place.blobs.glob("??/*")) == []
    for key in bucket.keys("a/hub/blobs/"):
        digest = key.rpartition("/")[2].partition(".")[0]
        (place.blobs / digest[:2]).mkdir(exist_ok=True)
        (place.blobs / digest[:2] / digest).write_bytes(bucket.read(key))
