"""A download that goes on where a broken line ended it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx2

from folkmoot.errors import DigestMismatch, Unavailable


class PartialFile:
    """What has come so far of the file that will be at `path`: in `<path>.part`, and its ETag in `<path>.part.etag`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._etag = path.with_name(f"{path.name}.part.etag")

    def headers(self) -> dict[str, str]:
        """Ask for the rest, if the file is still the same."""
        # Packed on the way, the bytes would not be those that the ranges count.
        headers = {"Accept-Encoding": "identity"}
        if (start := self._start()) and (etag := self._known_etag()):
            headers |= {"Range": f"bytes={start}-", "If-Range": etag}
        return headers

    def receive(self, response: httpx2.Response) -> None:
        """Write what comes, and put the file in its place once it is whole.

        Raises DigestMismatch, and forgets what has come, if its bytes are not those that the hub has.
        """
        if response.status_code == httpx2.codes.PARTIAL_CONTENT:
            self._go_on(response)
        else:
            self._begin(response)
        self._check(response.headers.get("X-Content-SHA256"))
        self._part.replace(self._path)
        self._etag.unlink(missing_ok=True)

    def _start(self) -> int:
        # The last byte is asked for again, so that even a file that is whole has something to come.
        return max(self._part.stat().st_size - 1, 0) if self._part.exists() else 0

    def _known_etag(self) -> str:
        return self._etag.read_text() if self._etag.exists() else ""

    def _begin(self, response: httpx2.Response) -> None:
        # In this order, so that no bytes ever lie beside the ETag of others.
        self.forget()
        etag = response.headers.get("ETag", "")
        if etag and not etag.startswith("W/"):
            self._etag.write_text(etag)
        self._write(response, 0)

    def _go_on(self, response: httpx2.Response) -> None:
        start = self._start()
        if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            self.forget()
            raise Unavailable(f"{response.url} was answered with another part of the file than the one asked for")
        self._write(response, start)

    def _write(self, response: httpx2.Response, start: int) -> None:
        with self._part.open("r+b" if start else "wb") as file:
            file.seek(start)
            # As the network brings them: what is gathered first is lost when the line breaks.
            for chunk in response.iter_bytes():
                file.write(chunk)

    def _check(self, expected: str | None) -> None:
        if expected is None:
            return
        with self._part.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != expected.lower():
            self.forget()
            raise DigestMismatch(f"{self._path.name} came with the SHA-256 {actual}, the hub has {expected}")

    def forget(self) -> None:
        """Begin anew next time."""
        self._part.unlink(missing_ok=True)
        self._etag.unlink(missing_ok=True)
