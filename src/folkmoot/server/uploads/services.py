"""Opening an upload, taking in its chunks, committing it, throwing it away.

A chunk counts once its bytes are on the disk and the row says so: bytes first. Whoever touches the bytes holds a lock
on their file, which the system releases when a process dies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Sum

from folkmoot.errors import InvalidValue, NotFound, TooLarge, TooManyUploads, WrongOffset
from folkmoot.server import clock
from folkmoot.server.accounts.models import User
from folkmoot.server.faults import fault_point
from folkmoot.server.storage.locks import lock_soon
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.uploads.models import Upload, UploadQuerySet
from folkmoot.tensors.replacing import naming_full_disk, sync_directory

Answer = dict[str, Any]


@transaction.atomic
def open_upload(
    owner: User, *, target: str, fields: dict[str, Any], size: int, sha256: str = ""
) -> tuple[Upload, bool]:
    """Make an upload, or find the unfinished one of the very same file; return it, and whether it is new.

    Raises TooLarge, or TooManyUploads for who has more under way than is allowed.
    """
    if size > settings.MAX_UPLOAD_BYTES:
        raise TooLarge(f"the file has {size:,} bytes; the limit is {settings.MAX_UPLOAD_BYTES:,}")
    # Of two openings at once, the second sees what the first has used up.
    User.objects.select_for_update().get(pk=owner.pk)
    mine = Upload.objects.of(owner).unfinished()
    same = mine.filter(target=target, size=size, sha256=sha256) if sha256 else mine.none()
    known = next((upload for upload in same if upload.fields == fields), None)
    if known is not None:
        return known, False
    _check_quota(mine, size)
    upload = Upload(owner=owner, target=target, fields=fields, size=size, sha256=sha256)
    upload.path.touch()
    upload.save(force_insert=True)
    return upload, True


def check_takes(upload: Upload, *, offset: int, length: int = 0) -> None:
    """See that a chunk of `length` bytes may come next; WrongOffset or TooLarge if not."""
    if upload.answer is not None:
        raise WrongOffset(f"Upload {upload.pk} is committed and takes no more chunks.", offset=upload.offset)
    if offset != upload.offset:
        raise WrongOffset(f"Upload {upload.pk} goes on at byte {upload.offset}, not {offset}.", offset=upload.offset)
    if offset + length > upload.size:
        raise TooLarge(f"the chunk ends at byte {offset + length:,} of an upload of {upload.size:,} bytes")


def append(upload: Upload, chunk: IncomingFile, *, offset: int) -> int:
    """Take in a chunk that is here whole; return the offset of the next. Raises what `check_takes` raises."""
    fault_point("upload.chunk_received")
    length = chunk.size or 0
    with _held(upload) as file:
        check_takes(upload, offset=offset, length=length)
        _write_durably(upload, file, chunk)
        fault_point("upload.chunk_written")
        _note(upload, offset=offset + length)
    fault_point("upload.chunk_counted")
    return upload.offset


def commit(upload: Upload, *, sha256: str, deliver: Callable[[IncomingFile], Answer]) -> Answer:
    """Hand the whole file to `deliver`, once, and return what it returned, then and whenever it is asked for again.

    A process may die after `deliver` and before its answer is kept: `deliver` must then know the file again. Raises
    WrongOffset if bytes are missing, DigestMismatch, and what `deliver` raises; the upload stays as it is then.
    """
    if not (sha256 or upload.sha256):
        raise InvalidValue("sha256 is missing: it is given when an upload is opened, or when it is committed")
    try:
        with _held(upload):
            if upload.answer is None:
                _deliver(upload, sha256, deliver)
    except NotFound:
        # Another connection may have committed it between our look at the row and our look for the file.
        upload = Upload.objects.filter(pk=upload.pk).first() or upload
        if upload.answer is None:
            raise
    return dict(upload.answer or {})


def discard(uploads: UploadQuerySet) -> None:
    """Remove these uploads, and their bytes."""
    for upload in uploads:
        # Asked again for each: an upload that was to be removed as expired may have got a chunk meanwhile.
        if uploads.filter(pk=upload.pk).delete()[0]:
            upload.path.unlink(missing_ok=True)


def _check_quota(unfinished: UploadQuerySet, size: int) -> None:
    hint = "finish one, delete one, or wait until they expire"
    if unfinished.count() >= settings.MAX_OPEN_UPLOADS:
        raise TooManyUploads(f"you have {settings.MAX_OPEN_UPLOADS} unfinished uploads, the most at a time; {hint}")
    total = size + (unfinished.aggregate(total=Sum("size"))["total"] or 0)
    if total > settings.MAX_OPEN_UPLOAD_BYTES:
        limit = f"{settings.MAX_OPEN_UPLOAD_BYTES:,}"
        raise TooManyUploads(f"your unfinished uploads would have {total:,} bytes; the limit is {limit}; {hint}")


@contextmanager
def _held(upload: Upload) -> Iterator[FileIO]:
    """The upload's file, for this caller alone, and its row as it is by then.

    NotFound if it is gone, Unavailable if another has it.
    """
    try:
        file = upload.path.open("r+b", buffering=0)
    except FileNotFoundError:
        raise _gone(upload) from None
    with file:
        lock_soon(file, f"Upload {upload.pk}")
        try:
            upload.refresh_from_db()
        except Upload.DoesNotExist:
            raise _gone(upload) from None
        yield file


def _write_durably(upload: Upload, file: FileIO, chunk: IncomingFile) -> None:
    """Put the chunk where the bytes that count end, in place of what a process that died may have left there."""
    file.seek(upload.offset)
    file.truncate()
    try:
        with naming_full_disk("the upload"):
            chunk.copy_to(file)
            os.fsync(file.fileno())
    except BaseException:
        file.truncate(upload.offset)
        raise
    if upload.offset == 0:
        sync_directory(upload.path.parent)


def _deliver(upload: Upload, sha256: str, deliver: Callable[[IncomingFile], Answer]) -> None:
    if upload.offset < upload.size:
        text = f"Upload {upload.pk} has {upload.offset:,} of {upload.size:,} bytes."
        raise WrongOffset(text, offset=upload.offset)
    _note(upload)  # so that it does not expire while its bytes are looked at
    # A second name for the same bytes, which the storage may take: the upload keeps the first until it has the answer.
    with IncomingFile.linked_to(upload.path) as incoming:
        for announced in filter(None, (upload.sha256, sha256)):
            incoming.check_digest(announced)
        answer = deliver(incoming)
    fault_point("upload.delivered")
    _note(upload, answer=answer)
    upload.path.unlink(missing_ok=True)


def _note(upload: Upload, **fields: Any) -> None:
    """Write these fields, and that the upload is alive; NotFound if it is gone."""
    fields["touched_at"] = clock.now()
    if not Upload.objects.filter(pk=upload.pk).update(**fields):
        raise _gone(upload)
    for name, value in fields.items():
        setattr(upload, name, value)


def _gone(upload: Upload) -> NotFound:
    return NotFound(f"Upload {upload.pk} not found.")
