"""How a file goes up: small ones in one request, large ones in chunks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import urlencode

from folkmoot.client.answers import json_object
from folkmoot.client.chunks import Call, ChunkedUploads, Json, LargeFile, Progress
from folkmoot.protocol import paths

CHUNKED_FROM_BYTES = 64 << 20
LONGEST_QUERY = 4000
"""Characters of an update's fields in an address; many a proxy takes 8 kB of a request's head."""


class Uploads:
    """Sends files with `call`, from `chunked_from` bytes on in chunks of `chunk_bytes`. For several threads."""

    def __init__(self, call: Call, *, chunked_from: int, chunk_bytes: int, log_seconds: float) -> None:
        self._call = call
        self._chunked_from = chunked_from
        self._chunked = ChunkedUploads(call, chunk_bytes=chunk_bytes, log_seconds=log_seconds)

    def send_model(self, path: Path, fields: Json, progress: Progress | None) -> Json:
        if path.stat().st_size >= self._chunked_from:
            return self._send_chunks(path, paths.MODELS, fields, None, progress)
        return _with_end(progress, path, self._send_form(path, paths.MODELS, fields, None))

    def send_update(
        self, model_id: str, path: Path, fields: Json, sha256: str | None, progress: Progress | None
    ) -> Json:
        if path.stat().st_size >= self._chunked_from:
            return self._send_chunks(path, paths.model(model_id), fields, sha256, progress)
        if len(urlencode(fields, doseq=True)) > LONGEST_QUERY:
            answer = self._send_form(path, paths.model(model_id), fields, sha256)
        else:
            answer = self._send_raw(path, paths.model_update(model_id), fields, sha256)
        return _with_end(progress, path, answer)

    def _send_raw(self, path: Path, target: str, fields: Json, sha256: str | None) -> Json:
        headers = {"Content-Type": "application/octet-stream"} | _digest_header(sha256)
        with path.open("rb") as file:
            return json_object(self._call("PUT", target, params=fields, headers=headers, content=file), target)

    def _send_form(self, path: Path, target: str, fields: Json, sha256: str | None) -> Json:
        with path.open("rb") as file:
            files = {"model_file": (path.name, file)}
            answer = self._call("POST", target, headers=_digest_header(sha256), data=fields, files=files)
            return json_object(answer, target)

    def _send_chunks(
        self, path: Path, target: str, fields: Json, sha256: str | None, progress: Progress | None
    ) -> Json:
        file = LargeFile(path, target, fields, sha256 or _sha256(path))
        return self._chunked.send(file, progress)


def _with_end(progress: Progress | None, path: Path, answer: Json) -> Json:
    if progress is not None:
        size = path.stat().st_size
        progress(size, size)
    return answer


def _digest_header(sha256: str | None) -> dict[str, str]:
    return {"X-Content-SHA256": sha256} if sha256 else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
