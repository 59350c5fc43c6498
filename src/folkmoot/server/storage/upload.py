"""Taking in a file of a multipart request: it streams to disk, and is hashed on the way."""

from __future__ import annotations

import hashlib
import os
import weakref
from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler

from folkmoot.errors import DigestMismatch, TooLarge
from folkmoot.server.faults import fault_point
from folkmoot.server.storage import get_storage
from folkmoot.tensors.replacing import naming_full_disk

CHUNK_BYTES = 2**20


class IncomingFile(UploadedFile):
    """A file on its way in; closing it removes it, unless the storage adopted it meanwhile."""

    def __init__(self, name: str | None) -> None:
        self.path = get_storage().new_incoming()
        self._sha256 = hashlib.sha256()
        self._remove = weakref.finalize(self, self.path.unlink, missing_ok=True)
        self._bytes = self.path.open("w+b", buffering=0)
        self._num_bytes = 0
        super().__init__(file=self._bytes, name=name, size=0)

    @property
    def sha256(self) -> str:
        """The digest, in hexadecimal, of the bytes so far."""
        return self._sha256.hexdigest()

    def append(self, data: bytes) -> None:
        rest = memoryview(data)
        with naming_full_disk("the upload"):
            while rest:
                # A disk that is almost full takes a part, and says so only by the number.
                rest = rest[self._bytes.write(rest) :]
        self._sha256.update(data)
        self._num_bytes += len(data)
        self.size = self._num_bytes

    def sync(self) -> None:
        """Return once the bytes would survive a power cut."""
        with naming_full_disk("the upload"):
            os.fsync(self._bytes.fileno())

    def check_digest(self, announced_sha256: str | None) -> None:
        """DigestMismatch if the sender announced another SHA-256 than the bytes have."""
        if announced_sha256 is not None and announced_sha256.lower() != self.sha256:
            raise DigestMismatch(f"{self.name} has the SHA-256 {self.sha256}, announced was {announced_sha256[:64]}")

    def close(self) -> None:
        super().close()
        self._remove()


class BlobUploadHandler(FileUploadHandler):
    """Streams each file of a form into the storage's folder for incoming files; one chunk is in memory."""

    chunk_size = CHUNK_BYTES
    # Django closes `file` when a request breaks off, and with it the bytes are gone.
    file: IncomingFile

    def handle_raw_input(self, input_data: Any, META: Any, content_length: int, *_: Any, **__: Any) -> None:  # noqa: N803
        fault_point("upload.before_stream")
        if content_length > settings.MAX_UPLOAD_BYTES:
            raise TooLarge(f"the request has {content_length:,} bytes; the limit is {settings.MAX_UPLOAD_BYTES:,}")

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        self.file = IncomingFile(self.file_name)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self.file.append(raw_data)
        fault_point("upload.mid_stream")

    def file_complete(self, file_size: int) -> IncomingFile:
        self.file.sync()
        return self.file

    def upload_interrupted(self) -> None:
        if hasattr(self, "file"):
            self.file.close()
