"""Making a backup of a hub that may be running, and making a hub of a backup."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from django.db import transaction

from folkmoot.errors import InvalidFile, Misconfigured
from folkmoot.server.backup import rows
from folkmoot.server.backup.archive import Head, Reader, Writer
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings.sweeps import referenced
from folkmoot.tensors.replacing import sync_directory

ATTEMPTS = 3
"""How often a backup is begun where the hub removes blobs before they are copied."""

Progress = Callable[[int, int], None]
"""Gets how many blobs of how many have been copied."""


class RemovedMeanwhile(Exception):
    """The rows that were read refer to blobs that the hub has had no use for since."""


def back_up(target: Path, *, progress: Progress) -> set[str]:
    """Write a backup to `target`, which must not be there yet, and is there only when it is whole.

    Returns the digests of blobs that rows refer to and the hub has lost. Raises Misconfigured if it cannot be written.
    """
    if target.exists():
        raise Misconfigured(f"{target} is there already; choose another name for the backup")
    for _ in range(ATTEMPTS):
        with _draft_of(target) as draft:
            try:
                missing = _write(draft, progress)
            except RemovedMeanwhile:
                continue
            draft.replace(target)
            sync_directory(target.parent)
            return missing
    raise Misconfigured("the hub removes files faster than they are copied; try again at a quieter time")


def restore(source: Path, *, progress: Progress) -> Head:
    """Make this hub, which has no rows yet, the one that the backup was made of.

    Raises InvalidFile for what is no whole backup, and Misconfigured where it does not fit this hub: no row is there
    then, and blobs that have come are removed by the sweep.
    """
    with _opened(source) as file, get_storage().draft() as lines:
        archive = Reader(file)
        _check_fits(archive.head)
        archive.save_rows(lines)
        _adopt_blobs(archive, progress)
        with transaction.atomic():
            rows.load(lines, permissions=archive.head.permissions)
            if lost := referenced() - archive.seen - archive.missing:
                raise InvalidFile(f"the backup lacks {len(lost)} files that its rows refer to")
    return archive.head


def _write(draft: Path, progress: Progress) -> set[str]:
    with get_storage().draft() as lines:
        with rows.one_moment():
            rows.save(lines)
            digests = sorted(referenced())
            head = Head(
                version=importlib.metadata.version("folkmoot"),
                migrations=rows.migrations(),
                blobs=len(digests),
                permissions=rows.permissions(),
            )
        with _created(draft) as file:
            archive = Writer(file, head)
            archive.add_rows(lines)
            missing = _add_blobs(archive, digests, progress)
            archive.finish(missing=missing)
    return missing


def _add_blobs(archive: Writer, digests: list[str], progress: Progress) -> set[str]:
    missing = set()
    for number, sha256 in enumerate(digests, 1):
        try:
            with get_storage().file(sha256) as path:
                archive.add_blob(sha256, path)
        except FileNotFoundError:
            missing.add(sha256)
        progress(number, len(digests))
    if missing - referenced():
        raise RemovedMeanwhile
    return missing


def _adopt_blobs(archive: Reader, progress: Progress) -> None:
    storage = get_storage()
    with storage.draft() as draft:
        for number, sha256 in enumerate(archive.save_blobs(draft), 1):
            storage.adopt(draft, sha256)
            progress(number, archive.head.blobs)


def _check_fits(head: Head) -> None:
    if rows.any_there():
        raise Misconfigured("this hub has users or models already; a backup is restored into a new one")
    if head.migrations != rows.migrations():
        here = importlib.metadata.version("folkmoot")
        raise Misconfigured(
            f"the backup is of Folkmoot {head.version}, whose tables are not those of this one, {here}: "
            f"restore it with Folkmoot {head.version}, then start the newer version, which brings the tables up to date"
        )


@contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    draft = target.with_name(f".{target.name}.part")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _created(path: Path) -> Iterator[IO[bytes]]:
    """For its owner alone: there is more in it than anybody may see over the API."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Misconfigured(f"cannot write the backup to {path.parent} ({error.strerror})") from error
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise Misconfigured(f"cannot read {path} ({error.strerror})") from error
    with file:
        yield file
