"""The file: a tar archive of a head, the rows as lines of JSON, and the blobs under their digests."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from folkmoot.errors import InvalidFile

FORMAT = 1
HEAD = "folkmoot-backup.json"
ROWS = "rows.jsonl"
BLOBS = "blobs/"
END = "end.json"
MAX_HEAD_BYTES = 2**20
BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class Head:
    """What has to be known before anything else is read."""

    version: str
    """Of Folkmoot."""
    migrations: dict[str, str]
    """The last one of each app: rows fit the same tables and no other."""
    blobs: int
    """How many there are, or were when the first was written."""
    permissions: dict[str, list[str]] = field(default_factory=dict)
    """What Django's permissions are, by their keys there."""
    format: int = FORMAT


class Writer:
    """Writes an archive member by member; each is read from a file."""

    def __init__(self, file: IO[bytes], head: Head) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by finish
        content = json.dumps(asdict(head)).encode()
        self._tar.addfile(_member(HEAD, len(content)), io.BytesIO(content))

    def add_rows(self, path: Path) -> None:
        self._add(ROWS, path)

    def add_blob(self, sha256: str, path: Path) -> None:
        self._add(BLOBS + sha256, path)

    def finish(self, *, missing: Collection[str]) -> None:
        """Say that this is all; `missing` are blobs that the rows refer to and the hub itself had lost."""
        content = json.dumps({"missing": sorted(missing)}).encode()
        self._tar.addfile(_member(END, len(content)), io.BytesIO(content))
        self._tar.close()

    def _add(self, name: str, path: Path) -> None:
        with path.open("rb") as file:
            self._tar.addfile(_member(name, path.stat().st_size), file)


class Reader:
    """Reads an archive from its beginning to its end; raises InvalidFile for what is none, or not whole."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            self._tar = tarfile.open(fileobj=file, mode="r|")  # noqa: SIM115 - of a file that the caller closes
            self._members = iter(self._tar)
            facts = self._first()
        except (tarfile.TarError, ValueError, InvalidFile) as error:
            raise InvalidFile("this is no backup of a hub") from error
        if facts.get("format") != FORMAT:
            raise InvalidFile(f"the backup's format is {facts.get('format')}; this version of Folkmoot reads {FORMAT}")
        self.head = Head(**facts)
        self.seen: set[str] = set()
        """The blobs that were in it, as far as it has been read."""
        self.missing: set[str] = set()
        """At the end: those that the hub had lost before the backup was made."""

    def save_rows(self, path: Path) -> None:
        """Write the rows, which come before the blobs, to this path."""
        name, content = self._next()
        if name != ROWS:
            raise InvalidFile("the backup has no rows")
        _save(content, path)

    def save_blobs(self, draft: Path) -> Iterator[str]:
        """Write each blob to `draft`, one after the other, and yield its digest. InvalidFile for a damaged one."""
        while (member := self._next())[0] != END:
            sha256 = member[0].removeprefix(BLOBS)
            if _save(member[1], draft) != sha256:
                raise InvalidFile(f"the backup is damaged: blob {sha256} has other bytes")
            self.seen.add(sha256)
            yield sha256
        self.missing = set(json.loads(member[1].read())["missing"])

    def _first(self) -> dict[str, Any]:
        name, content = self._next()
        if name != HEAD:
            raise InvalidFile(f"the first member is {name}")
        return dict(json.loads(content.read(MAX_HEAD_BYTES)))

    def _next(self) -> tuple[str, IO[bytes]]:
        try:
            member = next(self._members)
            content = self._tar.extractfile(member)
        except (StopIteration, tarfile.TarError) as error:
            raise InvalidFile("the backup ends before its end") from error
        if content is None:
            raise InvalidFile(f"the backup has a member that is no file: {member.name}")
        return member.name, content


def _save(content: IO[bytes], path: Path) -> str:
    """Write and fsync it; return its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        while block := _read(content):
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _read(content: IO[bytes]) -> bytes:
    try:
        return content.read(BLOCK_BYTES)
    except tarfile.TarError as error:
        raise InvalidFile("the backup ends before its end") from error


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member
