"""Blobs in an S3-compatible store: `<prefix>blobs/<SHA-256>.<a random number>`, through a cache on the local disk.

The random number makes removal safe without a lock that all machines would share. An adoption never touches an object
that is there already: it writes another one. A sweep removes only objects that it saw to be old before it asked which
digests are needed, by their full keys. Whoever comes to need a digest later has adopted it himself, and his object is
too young for any sweep that does not see his row yet. A removal may so be as slow as it likes, or come twice. Copies
that are left of a digest that is needed go in time, but for the newest, which everybody reads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from folkmoot.aggregation.sources import MappedFile
from folkmoot.aggregation.strategy import Source
from folkmoot.errors import Unavailable
from folkmoot.server.faults import fault_point
from folkmoot.server.storage.address import S3Address
from folkmoot.server.storage.assembly import Assembly
from folkmoot.server.storage.bucket import Bucket, Listed
from folkmoot.server.storage.contract import Storage
from folkmoot.server.storage.made import MadeFiles
from folkmoot.server.storage.read_ahead import ReadAhead, stretch_of
from folkmoot.tensors.replacing import replacing
from folkmoot.tensors.tensor_file import WrittenFile

READERS = 16
"""Threads of this process that fetch what aggregations read next."""
MOST_MAPPED = 256
"""Of the files in the cache that one aggregation maps; each keeps a descriptor."""


class S3Storage(Storage):
    """Blobs in a bucket; `root` has what comes in, and at most `cache_bytes` of what was used last."""

    def __init__(self, root: Path, address: S3Address, *, cache_bytes: int, seconds: float) -> None:
        super().__init__(root)
        self._bucket = Bucket(address, seconds=seconds)
        self._address = address
        self._blobs = f"{address.prefix}blobs/"
        self.assembly = Assembly(self._bucket, prefix=f"{address.prefix}parts/", blobs=self._blobs)
        self._cache = MadeFiles(root / "cache", limit=cache_bytes, new_draft=self.new_incoming)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="s3")

    def adopt(self, incoming: Path, sha256: str) -> None:
        self._bucket.put(f"{self._blobs}{sha256}.{uuid.uuid4().hex}", incoming, sha256=sha256)
        self._cache.keep(sha256, incoming, sha256)
        fault_point("upload.after_blob")

    @contextmanager
    def file(self, sha256: str) -> Iterator[Path]:
        # The file stays open: whether it keeps its name in the cache, then, does not matter.
        with self._cache.open(sha256, partial(self._fetch, sha256)).file as file:
            yield Path(f"/proc/self/fd/{file.fileno()}")

    def sources(self, digests: Sequence[str]) -> list[Path | Source]:
        """From the local cache what is there; the rest in stretches over the network, and never onto the disk."""
        wanted = set(digests)
        cached = sorted(self._cache.keys() & wanted)[:MOST_MAPPED]
        far = sorted(wanted.difference(cached))
        remote = partial(self._remote, stretch=stretch_of(len(far)))
        found = {sha256: self._mapped(sha256) for sha256 in cached}
        found |= zip(far, self._readers.map(remote, far), strict=True)
        return [found[sha256] for sha256 in digests]

    def is_intact(self, sha256: str) -> bool:
        """The cache's copy will do; where that is damaged, or there is none, the store's is looked at on its way."""
        with suppress(FileNotFoundError, _OtherBytes):
            with self.file(sha256) as path:
                if _sha256_of(path) == sha256:
                    return True
            self._cache.drop(sha256)
            with self.file(sha256):
                return True
        return False

    def distrust(self, sha256: str) -> None:
        """Every adoption writes anew here, and what was written last is what is read: only the cache stands between."""
        self._cache.drop(sha256)

    def remove_orphans(self, *, older_than: float, needed: Callable[[], set[str]]) -> None:
        listed = list(self._bucket.listed(self._blobs))
        if old := [each for each in listed if each.age >= older_than]:
            newest = {_newest(copies).key for copies in _by_digest(listed).values()}
            kept = needed()
            for each in old:
                if _digest_of(each) not in kept or each.key not in newest:
                    self._bucket.delete(each.key)
        self._bucket.abort_old_uploads(self._blobs, older_than=older_than)

    def check(self) -> str:
        self._bucket.check(f"{self._address.prefix}check.{uuid.uuid4().hex}")
        where = self._address.endpoint or "Amazon S3"
        return f"bucket {self._address.bucket} at {where} can be written and read"

    def answers(self) -> bool:
        return os.access(self.root, os.W_OK) and self._bucket.answers()

    def _fetch(self, sha256: str, draft: Path) -> WrittenFile:
        found = self._found(sha256)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), sha256)
        with replacing(draft) as file:
            came = self._bucket.download(found.key, file)
            if came != sha256:
                raise _OtherBytes(f"the file store has other bytes than were put there under {sha256[:12]}")
        return WrittenFile(sha256, found.num_bytes)

    def _found(self, sha256: str) -> Listed | None:
        copies = list(self._bucket.listed(f"{self._blobs}{sha256}."))
        return _newest(copies) if copies else None

    def _mapped(self, sha256: str) -> Path | Source:
        with self.file(sha256) as path:
            return MappedFile(path)

    def _remote(self, sha256: str, *, stretch: int) -> Path | Source:
        found = self._found(sha256)
        if found is None:
            return self.root / "cache" / sha256
        read_into = partial(self._bucket.read_into, found.key)
        return ReadAhead(read_into, found.num_bytes, stretch=stretch, readers=self._readers)


class _OtherBytes(Unavailable):
    """Perhaps they were spoiled on the way, and come well the next time."""


def _by_digest(listed: Sequence[Listed]) -> Mapping[str, list[Listed]]:
    copies: dict[str, list[Listed]] = {}
    for each in listed:
        copies.setdefault(_digest_of(each), []).append(each)
    return copies


def _digest_of(listed: Listed) -> str:
    return listed.key.rpartition("/")[2].partition(".")[0]


def _newest(copies: Sequence[Listed]) -> Listed:
    """The same one for everybody: of those of one second, the one with the last key."""
    return max(copies, key=lambda each: (-each.age, each.key))


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
