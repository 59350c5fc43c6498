"""A bucket in an S3-compatible store: every request ends in bounded time, and what fails is said in our words."""

from __future__ import annotations

import base64
import errno
import hashlib
import logging
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from folkmoot.errors import Misconfigured, StorageFull, Unavailable
from folkmoot.server.storage.address import S3Address
from folkmoot.server.storage.file_range import open_range

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError as error:
    raise Misconfigured("FOLKMOOT_STORAGE_URL names an S3 store: pip install 'folkmoot[s3]'") from error

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 3.0
ATTEMPTS = 3
CONNECTIONS = 64
PART_BYTES = 64 * 2**20
MOST_PARTS = 10_000
_BLOCK_BYTES = 2**20
_FULL = {"EntityTooLarge", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
_GONE = {"404", "NoSuchKey", "NoSuchUpload"}


@dataclass(frozen=True)
class Listed:
    """An object; `age` is in seconds, by the store's own clock."""

    key: str
    num_bytes: int
    age: float


class Bucket:
    """Objects by key. Raises Unavailable, StorageFull, and FileNotFoundError for what is not there.

    `seconds` is how long the store may be silent before a request is tried again, and then given up.
    """

    def __init__(self, address: S3Address, *, seconds: float) -> None:
        self._name = address.bucket
        self._client = _client(address, seconds=seconds, attempts=ATTEMPTS)
        self._address = address

    def put(self, key: str, path: Path, *, sha256: str) -> None:
        """Write the file of that SHA-256; the store refuses bytes that were spoiled on the way."""
        size = path.stat().st_size
        try:
            if size <= PART_BYTES:
                self._put_whole(key, path, size, sha256)
            else:
                self._put_parts(key, path, size)
            # Some stores do not look at checksums; none keeps a torn object's size a secret.
            if (found := self._size(key)) != size:
                raise Unavailable(f"the file store kept {found:,} of {size:,} bytes; try again")
        except Unavailable:
            with suppress(Unavailable):
                self.delete(key)
            raise

    def download(self, key: str, file: IO[bytes]) -> str:
        """Write the object to `file`; return the SHA-256 of what came."""
        digest = hashlib.sha256()
        for block in self.blocks(key):
            digest.update(block)
            file.write(block)
        return digest.hexdigest()

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the object's bytes from `offset` on; an answer that breaks off is asked for again."""
        wanted = f"bytes={offset}-{offset + len(buffer) - 1}"
        for left in reversed(range(ATTEMPTS)):
            try:
                with _naming_faults():
                    body = self._client.get_object(Bucket=self._name, Key=key, Range=wanted)["Body"]
                    _fill(buffer, body.read)
                return
            except Unavailable:
                if not left:
                    raise

    def listed(self, prefix: str) -> Iterator[Listed]:
        """The objects whose keys begin so."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=prefix)
        with _naming_faults():
            for page in pages:
                now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
                for each in page.get("Contents", ()):
                    yield Listed(each["Key"], each["Size"], (now - each["LastModified"]).total_seconds())

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""
        with _naming_faults():
            self._client.delete_object(Bucket=self._name, Key=key)

    def abort_old_uploads(self, prefix: str, *, older_than: float, but: Collection[str] = ()) -> None:
        """Remove the parts of objects that began to be written so long ago, in seconds, and never were complete.

        Not of those whose keys are among `but`.
        """
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._name, Prefix=prefix)
        with _naming_faults():
            for page in pages:
                now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
                for each in page.get("Uploads", ()):
                    if (now - each["Initiated"]).total_seconds() >= older_than and each["Key"] not in but:
                        self._abort(each["Key"], each["UploadId"])

    def begin_parts(self, key: str) -> str:
        """Begin to write an object in parts, in any order and from anywhere; return the id of that."""
        with _naming_faults():
            answer = self._client.create_multipart_upload(Bucket=self._name, Key=key, ChecksumAlgorithm="SHA256")
        return answer["UploadId"]

    def put_part(self, key: str, upload: str, number: int, path: Path, start: int, stop: int) -> None:
        """Write a part, counted from 1, of a stretch of the file; one that was written before is replaced."""
        with _naming_faults(), open_range(path, start, stop) as body:
            checksum = base64.b64encode(hashlib.file_digest(body, "sha256").digest()).decode()
            body.seek(0)
            self._client.upload_part(
                Bucket=self._name, Key=key, UploadId=upload, PartNumber=number, Body=body, ChecksumSHA256=checksum
            )

    def join_parts(self, key: str, upload: str) -> None:
        """Make the object of the parts; one that was made of them before is left as it is."""
        try:
            with _naming_faults():
                pages = self._client.get_paginator("list_parts").paginate(Bucket=self._name, Key=key, UploadId=upload)
                parts = [_described(part) for page in pages for part in page.get("Parts", ())]
                self._client.complete_multipart_upload(
                    Bucket=self._name, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
                )
        except FileNotFoundError:
            self._size(key)

    def blocks(self, key: str) -> Iterator[bytes]:
        """The object's bytes, in order."""
        with _naming_faults():
            body = self._client.get_object(Bucket=self._name, Key=key)["Body"]
            while block := body.read(_BLOCK_BYTES):
                yield block

    def copy(self, key: str, to: str) -> None:
        """Have the store copy the object; nothing of it comes here."""
        with _naming_faults():
            self._client.copy({"Bucket": self._name, "Key": key}, self._name, to)

    def check(self, key: str) -> None:
        """Write a small object, read it and remove it."""
        with _naming_faults():
            self._client.put_object(Bucket=self._name, Key=key, Body=b"folkmoot")
            self._client.get_object(Bucket=self._name, Key=key)["Body"].read()
            self._client.delete_object(Bucket=self._name, Key=key)

    def answers(self) -> bool:
        """Whether the bucket is there, asked once and without much patience."""
        try:
            with _naming_faults():
                self._impatient.head_bucket(Bucket=self._name)
        except (Unavailable, FileNotFoundError):
            return False
        return True

    @cached_property
    def _impatient(self) -> S3Client:
        return _client(self._address, seconds=2.0, attempts=1)

    def _size(self, key: str) -> int:
        with _naming_faults():
            return self._client.head_object(Bucket=self._name, Key=key)["ContentLength"]

    def _put_whole(self, key: str, path: Path, size: int, sha256: str) -> None:
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        with _naming_faults(), open_range(path, 0, size) as body:
            self._client.put_object(Bucket=self._name, Key=key, Body=body, ChecksumSHA256=checksum)

    def _put_parts(self, key: str, path: Path, size: int) -> None:
        upload = self.begin_parts(key)
        try:
            for number, start, stop in _spans(size):
                self.put_part(key, upload, number, path, start, stop)
            self.join_parts(key, upload)
        except BaseException:
            with suppress(Unavailable):
                self._abort(key, upload)
            raise

    def _abort(self, key: str, upload: str) -> None:
        with suppress(FileNotFoundError), _naming_faults():
            self._client.abort_multipart_upload(Bucket=self._name, Key=key, UploadId=upload)


def _described(part: Any) -> Any:
    """As it has to be named for its object to be made; a store that knows no checksums has none."""
    return {name: part[name] for name in ("PartNumber", "ETag", "ChecksumSHA256") if name in part}


def _spans(size: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and stop of each part; all but the last are equally long."""
    part = max(PART_BYTES, -(-size // MOST_PARTS))
    for number, start in enumerate(range(0, size, part), start=1):
        yield number, start, min(start + part, size)


def _fill(buffer: memoryview, read: Callable[[int], bytes]) -> None:
    rest = buffer
    while rest:
        block = read(len(rest))
        if not block:
            raise EOFError
        rest[: len(block)] = block
        rest = rest[len(block) :]


def _client(address: S3Address, *, seconds: float, attempts: int) -> S3Client:
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=CONNECTIONS,
        # What is sent has our own checksum, and what comes is compared with a blob's digest, or that of each block.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # With an endpoint of its own a store seldom has a name for each bucket.
        s3={"addressing_style": "path" if address.endpoint else "auto"},
    )
    try:
        return boto3.client("s3", region_name=address.region, endpoint_url=address.endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise Misconfigured(f"FOLKMOOT_STORAGE_URL cannot be used: {error}") from error


@contextmanager
def _naming_faults() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _GONE:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
        logger.warning("the file store refuses: %s", error)
        if code in _FULL:
            raise StorageFull(f"no space left in the file store ({code})") from error
        raise Unavailable(f"the file store cannot do it for the moment ({code}); try again") from error
    except BotoCoreError as error:
        logger.warning("the file store does not answer: %s", error)
        raise Unavailable(f"the file store does not answer ({type(error).__name__}); try again") from error
