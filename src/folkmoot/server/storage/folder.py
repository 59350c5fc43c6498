"""Blobs in a folder: `<root>/ab/abcdef...`, each written once and never changed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from folkmoot.aggregation.strategy import Source
from folkmoot.errors import Misconfigured
from folkmoot.server.faults import fault_point
from folkmoot.server.storage.age import old_ones
from folkmoot.server.storage.contract import Storage
from folkmoot.tensors.replacing import sync_directory


class FolderStorage(Storage):
    """Keeps blobs below `root`, on the same file system as what comes in."""

    def path(self, sha256: str) -> Path:
        """Where the blob is, or would be."""
        return self.root / sha256[:2] / sha256

    def adopt(self, incoming: Path, sha256: str) -> None:
        target = self.path(sha256)
        with self._lock(fcntl.LOCK_SH):
            if target.exists():
                os.utime(target)
                incoming.unlink()
            else:
                self._move(incoming, target)
        fault_point("upload.after_blob")

    @contextmanager
    def file(self, sha256: str) -> Iterator[Path]:
        path = self.path(sha256)
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        yield path

    def sources(self, digests: Sequence[str]) -> list[Path | Source]:
        return [self.path(sha256) for sha256 in digests]

    def is_intact(self, sha256: str) -> bool:
        with suppress(FileNotFoundError), self.path(sha256).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        return False

    def distrust(self, sha256: str) -> None:
        blob = self.path(sha256)
        with suppress(FileNotFoundError), blob.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return
            with self._lock(fcntl.LOCK_EX):
                # Unless another has removed it meanwhile, and it has come again.
                if os.path.samestat(os.fstat(file.fileno()), blob.stat()):
                    blob.unlink()

    def remove_orphans(self, *, older_than: float, needed: Callable[[], set[str]]) -> None:
        """As everywhere: an adoption makes a blob young under the lock that a removal holds while it looks again."""
        old = {blob.name for blob in old_ones(self.root.glob("??/*"), older_than)}
        if not old:
            return
        for blob in map(self.path, old - needed()):
            with self._lock(fcntl.LOCK_EX):
                for still_old in old_ones([blob], older_than):
                    still_old.unlink()

    def check(self) -> str:
        there = next(folder for folder in (self.root, *self.root.parents) if folder.is_dir())
        if not os.access(there, os.W_OK | os.X_OK):
            raise Misconfigured(f"cannot write to the folder {there}")
        return f"{self.root} can be written"

    def answers(self) -> bool:
        return os.access(self.root, os.W_OK)

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
