"""Files that were made for an answer, kept for the next: within a limit, and longest those that were used last."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

from folkmoot.errors import StorageFull
from folkmoot.server.storage.locks import lock_soon
from folkmoot.tensors.tensor_file import WrittenFile

Make = Callable[[Path], WrittenFile]


class OpenedFile(NamedTuple):
    """A file that stays readable though its name may go, and the SHA-256 of its bytes."""

    file: BinaryIO
    sha256: str

    @property
    def num_bytes(self) -> int:
        return os.fstat(self.file.fileno()).st_size


class MadeFiles:
    """Keeps files in `folder` as `<key>.<SHA-256>`, together at most `limit` bytes.

    They are moved in complete and on the disk, so that whatever is there is whole, even after a crash. `new_draft`
    gives paths on the same file system.
    """

    def __init__(self, folder: Path, *, limit: int, new_draft: Callable[[], Path]) -> None:
        self._folder = folder
        self._limit = limit
        self._new_draft = new_draft

    def open(self, key: str, make: Make) -> OpenedFile:
        """The file of that key; where there is none it is made, once, however many ask at the same time.

        Unavailable to who would have to wait long for another to make it.
        """
        found = self._find(key)
        if found is None:
            with self._lock(key):
                found = self._find(key) or self._make(key, make)
            self._trim(self._limit)
        return found

    def keep(self, key: str, file: Path, sha256: str) -> None:
        """Move in a file of that key that is complete and on the disk."""
        self._folder.mkdir(parents=True, exist_ok=True)
        os.utime(file)
        file.replace(self._folder / f"{key}.{sha256}")
        self._trim(self._limit)

    def drop(self, key: str) -> None:
        """Have the file of that key made anew when it is next asked for."""
        for path in self._folder.glob(f"{key}.*"):
            path.unlink(missing_ok=True)

    def keys(self) -> set[str]:
        """Of the files that are here; any of them may go at any time."""
        return {path.stem for path in self._folder.glob("*.*")}

    def _find(self, key: str) -> OpenedFile | None:
        for path in self._folder.glob(f"{key}.*"):
            # It may be gone by now; what has been opened stays.
            with suppress(FileNotFoundError):
                file = path.open("rb")
                os.utime(file.fileno())
                return OpenedFile(file, path.suffix[1:])
        return None

    def _make(self, key: str, make: Make) -> OpenedFile:
        draft = self._new_draft()
        try:
            written = self._written(draft, make)
            file = draft.open("rb")
            draft.replace(self._folder / f"{key}.{written.sha256}")
        finally:
            draft.unlink(missing_ok=True)
        return OpenedFile(file, written.sha256)

    def _written(self, draft: Path, make: Make) -> WrittenFile:
        try:
            return make(draft)
        except StorageFull:
            # What is here can be made again, so models go on being read from a disk that is full.
            self._trim(0)
            return make(draft)

    def _trim(self, limit: int) -> None:
        """Remove what was not used for longest, until the rest is within `limit` bytes."""
        for path, stat in sorted(self._kept(), key=lambda kept: kept[1].st_mtime, reverse=True):
            limit -= stat.st_size
            if limit < 0:
                path.unlink(missing_ok=True)

    def _kept(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._folder.glob("*.*"):
            with suppress(FileNotFoundError):
                yield path, path.stat()

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        locks = self._folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        path = locks / key
        while True:
            with path.open("w") as file:
                lock_soon(file, "This file")
                if not _is_named(file, path):
                    continue
                try:
                    yield
                finally:
                    path.unlink()
                return


def _is_named(file: TextIO, path: Path) -> bool:
    """Whether it is still the file of that name: who had the lock before may have removed that."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
