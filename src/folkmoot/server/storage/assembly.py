"""Files that many machines write a part each of: under a key of their own until they are whole."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from folkmoot.server.storage.bucket import Bucket


@dataclass(frozen=True)
class Assembled:
    """A file in the making, by which any process finds it."""

    key: str
    upload: str


class Assembly:
    """Such files below `prefix`; a blob is one that was copied to `blobs`. Raises Unavailable."""

    def __init__(self, bucket: Bucket, *, prefix: str, blobs: str) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._blobs = blobs

    def begin(self) -> Assembled:
        key = f"{self._prefix}{uuid.uuid4().hex}"
        return Assembled(key, self._bucket.begin_parts(key))

    def put(self, file: Assembled, number: int, part: Path) -> None:
        """Write the part of that number, from 0 on; again, in place of what was there.

        Raises FileNotFoundError where nobody wants it any more.
        """
        self._bucket.put_part(file.key, file.upload, number + 1, part, 0, part.stat().st_size)

    def joined(self, file: Assembled) -> Iterator[bytes]:
        """Make the file of its parts, if that is not done yet; give its bytes."""
        self._bucket.join_parts(file.key, file.upload)
        yield from self._bucket.blocks(file.key)

    def adopt(self, file: Assembled, sha256: str) -> None:
        """Make a blob of the file, which was joined and has that digest."""
        self._bucket.copy(file.key, f"{self._blobs}{sha256}.{uuid.uuid4().hex}")

    def remove_orphans(self, *, older_than: float, needed: Callable[[], set[str]]) -> None:
        """Remove files, whole or not, that were begun so many seconds ago and whose keys are not `needed`."""
        old = [each.key for each in self._bucket.listed(self._prefix) if each.age >= older_than]
        kept = needed()
        for key in set(old) - kept:
            self._bucket.delete(key)
        self._bucket.abort_old_uploads(self._prefix, older_than=older_than, but=kept)
