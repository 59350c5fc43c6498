"""Taking in a file: it streams to disk, and is hashed on the way."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import weakref
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, Self

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

    def __init__(self, name: str | None, *, contents: Path | None = None) -> None:
        self.path = get_storage().new_incoming()
        self._sha256 = hashlib.sha256()
        self._remove = weakref.finalize(self, self.path.unlink, missing_ok=True)
        if contents is not None:
            _link(contents, self.path)
        self._bytes = self.path.open("r+b" if contents else "w+b", buffering=0)
        self._num_bytes = 0
        super().__init__(file=self._bytes, name=name, size=0)

    @classmethod
    def linked_to(cls, path: Path) -> Self:
        """Of bytes that are on the disk already: they get a second name, and this removes only that."""
        incoming = cls("the upload", contents=path)
        for block in incoming.blocks():
            incoming._count(block)
        return incoming

    @property
    def sha256(self) -> str:
        """The digest, in hexadecimal, of the bytes so far."""
        return self._sha256.hexdigest()

    def append(self, data: bytes) -> None:
        with naming_full_disk("the upload"):
            write_all(self._bytes, data)
        self._count(data)

    def blocks(self) -> Iterator[bytes]:
        """The bytes from the beginning, in blocks."""
        self._bytes.seek(0)
        return iter(lambda: self._bytes.read(CHUNK_BYTES), b"")

    def copy_to(self, file: FileIO) -> None:
        """Write all bytes where `file` stands; StorageFull if they have no room there."""
        with naming_full_disk("the upload"):
            if sys.platform == "linux":
                _copy_within_the_system(self._bytes, file)
            else:
                for block in self.blocks():
                    write_all(file, block)

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

    def _count(self, data: bytes) -> None:
        self._sha256.update(data)
        self._num_bytes += len(data)
        self.size = self._num_bytes


def write_all(file: FileIO, data: bytes) -> None:
    """Write to a file without a buffer until everything is written."""
    rest = memoryview(data)
    while rest:
        # A disk that is almost full takes a part, and says so only by the number.
        rest = rest[file.write(rest) :]


def _copy_within_the_system(source: FileIO, file: FileIO) -> None:
    position, end = 0, os.fstat(source.fileno()).st_size
    while position < end:
        position += os.sendfile(file.fileno(), source.fileno(), position, end - position)


def _link(path: Path, name: Path) -> None:
    try:
        name.hardlink_to(path)
    except OSError:
        # A file system that knows no second names.
        with naming_full_disk("the upload"):
            shutil.copyfile(path, name)


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
        return self.file

    def upload_interrupted(self) -> None:
        if hasattr(self, "file"):
            self.file.close()
