"""Blobs in a folder: `<root>/ab/abcdef...`, each written once and never changed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from folkmoot.server.faults import fault_point
from folkmoot.tensors.replacing import sync_directory


class FolderStorage:
    """Keeps blobs below `root`; on the same file system, `<root>/incoming` has files on their way in.

    Those of uploads that come in chunks are in `<root>/partial`, and outlive the process.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._partial = root / "partial"

    def prepare(self) -> None:
        """Make the folders, and remove what an earlier process left half-way; nothing may be coming in yet."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._partial.mkdir(exist_ok=True)
        for leftover in self._incoming.iterdir():
            leftover.unlink()

    def new_incoming(self) -> Path:
        """A path for a file on its way in."""
        return self._incoming / uuid.uuid4().hex

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Such a path, whose file is removed at the end unless it was adopted."""
        draft = self.new_incoming()
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def partial(self, name: str) -> Path:
        """Where the file of an upload in chunks is, or would be."""
        return self._partial / name

    def partials(self) -> Iterator[Path]:
        return self._partial.iterdir()

    def path(self, sha256: str) -> Path:
        """Where the blob is, or would be."""
        return self.root / sha256[:2] / sha256

    def adopt(self, incoming: Path, sha256: str) -> None:
        """Move a complete, fsynced file in under its digest; it survives a power cut once this returns.

        Bytes that are here already are kept, and count as new for the sweep.
        """
        target = self.path(sha256)
        with self._lock(fcntl.LOCK_SH):
            if target.exists():
                os.utime(target)
                incoming.unlink()
            else:
                self._move(incoming, target)
        fault_point("upload.after_blob")

    def older_than(self, seconds: float) -> set[str]:
        """The digests of all blobs that have been here at least this long."""
        return {blob.name for blob in old_ones(self.root.glob("??/*"), seconds)}

    def remove_if_old(self, digests: Iterable[str], seconds: float) -> None:
        """Remove these blobs, but none that was adopted again within `seconds`: both sides hold the lock."""
        newest = time.time() - seconds
        for blob in map(self.path, digests):
            with self._lock(fcntl.LOCK_EX):
                if blob.exists() and blob.stat().st_mtime <= newest:
                    blob.unlink()

    def is_intact(self, sha256: str) -> bool:
        """Whether the blob is there and has the bytes of its name."""
        with suppress(FileNotFoundError), self.path(sha256).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        return False

    def remove_if_damaged(self, sha256: str) -> None:
        """Remove the blob if its bytes do not have this digest any more, so that they can be adopted again."""
        blob = self.path(sha256)
        with suppress(FileNotFoundError), blob.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return
            with self._lock(fcntl.LOCK_EX):
                # Unless another has removed it meanwhile, and it has come again.
                if os.path.samestat(os.fstat(file.fileno()), blob.stat()):
                    blob.unlink()

    def _move(self, incoming: Path, target: Path) -> None:
        if not target.parent.exists():
            target.parent.mkdir(exist_ok=True)
            sync_directory(self.root)
        incoming.replace(target)
        os.utime(target)
        sync_directory(target.parent)

    @contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        with (self.root / "lock").open("w") as file:
            fcntl.flock(file, kind)
            yield


def old_ones(paths: Iterable[Path], seconds: float) -> Iterator[Path]:
    """Those of the files that have not changed for so long; one that goes meanwhile is none of them."""
    newest = time.time() - seconds
    for path in paths:
        with suppress(FileNotFoundError):
            if path.stat().st_mtime <= newest:
                yield path
