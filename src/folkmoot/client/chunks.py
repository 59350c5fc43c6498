"""Sending large files in chunks, so that a line that breaks costs one chunk and not the file."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folkmoot.client.answers import Busy, json_object
from folkmoot.errors import (
    Conflict,
    DigestMismatch,
    IncompleteRequest,
    InvalidInput,
    NotAllowed,
    NotFound,
    Unavailable,
    WrongOffset,
)
from folkmoot.protocol import paths

logger = logging.getLogger("folkmoot.client")

CHUNK_BYTES = 8 << 20
SLOWEST_COMMIT = 20e6
"""Bytes a second at which the hub is expected to look through a file, at least."""
LOG_SECONDS = 10.0
"""How often a long upload says in the log how far it is."""
TIMES_A_CHUNK = 3
"""How often a chunk is sent that does not arrive as it was; a line that spoils each one is no line."""

Json = dict[str, Any]
Call = Callable[..., Any]
Progress = Callable[[int, int], None]
"""Told how many bytes the hub has, of how many."""


@dataclass(frozen=True)
class LargeFile:
    """A file, what it is for, and its SHA-256 in hexadecimal."""

    path: Path
    target: str
    fields: Json
    sha256: str

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    @property
    def key(self) -> str:
        return json.dumps([self.target, self.fields, self.sha256])


class ChunkedUploads:
    """The uploads of one hub; `call` sends a request and returns the answer's JSON. For several threads."""

    def __init__(self, call: Call, *, chunk_bytes: int, log_seconds: float) -> None:
        self._call = call
        self._chunk_bytes = chunk_bytes
        self._log_seconds = log_seconds
        self._ids: dict[str, str] = {}

    def send(self, file: LargeFile, progress: Progress | None) -> Json:
        """What the target answers. A line that breaks does not matter as long as the hub has more each time.

        Raises Unavailable otherwise; called again, it goes on where it was.
        """
        failure, offset = None, -1
        while True:
            upload = self._opened(file)
            if failure is not None and upload["offset"] <= offset:
                raise failure
            offset = upload["offset"]
            try:
                self._send_rest(file, upload, progress)
                return self._commit(file, upload["id"])
            except Busy:
                raise
            except Unavailable as error:
                failure = error
            except WrongOffset as error:
                # A chunk that we gave up for lost has arrived meanwhile.
                failure = Unavailable(error.message)
            logger.info("%s; going on with the upload", failure)

    def _opened(self, file: LargeFile) -> Json:
        """The upload that is under way, for this object or at the hub, else a new one."""
        try:
            if file.key in self._ids:
                # Committed perhaps, and the answer lost: the hub would not find it among the unfinished ones.
                return self._object("GET", paths.upload(self._ids[file.key]))
        except NotFound:
            self._ids.pop(file.key, None)
        wanted = {"target": file.target, "fields": file.fields, "size": file.size, "sha256": file.sha256}
        upload = self._object("POST", paths.UPLOADS, json=wanted)
        self._ids[file.key] = upload["id"]
        return upload

    def _send_rest(self, file: LargeFile, upload: Json, progress: Progress | None) -> None:
        report = _reporter(file.size, progress, self._log_seconds)
        chunk_bytes = min(self._chunk_bytes, int(upload.get("max_chunk_bytes", self._chunk_bytes)))
        with file.path.open("rb") as content:
            offset = content.seek(upload["offset"])
            while chunk := content.read(chunk_bytes):
                self._send_chunk(upload["id"], chunk, offset)
                offset += len(chunk)
                report(offset)

    def _send_chunk(self, upload_id: str, chunk: bytes, offset: int) -> None:
        headers = {"Upload-Offset": str(offset), "X-Content-SHA256": hashlib.sha256(chunk).hexdigest()}
        headers["Content-Type"] = "application/octet-stream"
        for times_left in reversed(range(TIMES_A_CHUNK)):
            try:
                self._call("PATCH", paths.upload(upload_id), content=chunk, headers=headers)
                return
            except (DigestMismatch, IncompleteRequest) as error:
                # Nothing of it counts, and the hub waits for it at the same offset.
                if not times_left:
                    raise
                logger.info("%s; sending the chunk again", error)

    def _commit(self, file: LargeFile, upload_id: str) -> Json:
        body, timeout = {"sha256": file.sha256}, 60 + file.size / SLOWEST_COMMIT
        try:
            answer = self._object("POST", paths.upload_commit(upload_id), json=body, timeout=timeout)
        except WrongOffset:
            raise
        except (InvalidInput, Conflict, NotAllowed, NotFound):
            self._discard(file, upload_id)
            raise
        self._ids.pop(file.key, None)
        return answer

    def _discard(self, file: LargeFile, upload_id: str) -> None:
        """Have the hub forget what it has refused; if that fails, the upload expires."""
        self._ids.pop(file.key, None)
        try:
            self._call("DELETE", paths.upload(upload_id))
        except (Unavailable, NotFound) as error:
            logger.info("an upload that was refused stays until it expires: %s", error)

    def _object(self, method: str, path: str, **request: Any) -> Json:
        return json_object(self._call(method, path, **request), path)


def _reporter(size: int, progress: Progress | None, log_seconds: float) -> Callable[[int], None]:
    """A function that passes on how many bytes the hub has, and logs it now and then."""
    logged_at = time.monotonic()

    def report(offset: int) -> None:
        nonlocal logged_at
        if progress is not None:
            progress(offset, size)
        if time.monotonic() - logged_at >= log_seconds:
            logged_at = time.monotonic()
            logger.info("%.0f of %.0f MB sent", offset / 1e6, size / 1e6)

    return report
