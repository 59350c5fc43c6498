"""An S3-compatible store over HTTP, and a line to it that tests break."""

from __future__ import annotations

import contextlib
import http.client
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import boto3

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "canary-4d81aa-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A store with no buckets yet, in threads of this process."""
    from moto.s3 import models
    from moto.server import ThreadedMotoServer

    models.S3_UPLOAD_PART_MIN_SIZE = 2**18  # not 5 MiB, which would make of each test with parts a slow one
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield ObjectStore("http://{}:{}".format(*server.get_host_and_port()))
    finally:
        server.stop()


class ObjectStore:
    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        keys = {"aws_access_key_id": "tests", "aws_secret_access_key": "tests"}
        self.client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)

    def new_bucket(self) -> Bucket:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return Bucket(self, name)


class Bucket:
    """What is in a bucket, looked at and meddled with behind the hub's back."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store, self._client = store, store.client
        self.name = name

    def url(self, *, endpoint: str | None = None) -> str:
        return f"s3://{self.name}/a/hub?region=us-east-1&endpoint={quote(endpoint or self._store.endpoint)}"

    def keys(self, contains: str = "") -> list[str]:
        found = self._client.list_objects_v2(Bucket=self.name).get("Contents", ())
        return sorted(each["Key"] for each in found if contains in each["Key"])

    def digests(self) -> list[str]:
        return sorted(key.rpartition("/")[2].partition(".")[0] for key in self.keys("blobs/"))

    def read(self, key: str) -> bytes:
        return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=data)

    def spoil(self, sha256: str, data: bytes = b"other") -> None:
        for key in self.keys(sha256):
            self.put(key, data)

    def delete(self, contained: str) -> None:
        for key in self.keys(contained):
            self._client.delete_object(Bucket=self.name, Key=key)

    def unfinished(self) -> int:
        return len(self._client.list_multipart_uploads(Bucket=self.name).get("Uploads", ()))

    def begin_parts(self, key: str) -> None:
        self._client.create_multipart_upload(Bucket=self.name, Key=key)

    def age(self, sha256: str, seconds: float) -> None:
        """Let the blob have come so long ago: the store is in this process."""
        from moto.s3.models import s3_backends

        bucket = s3_backends["123456789012"]["aws"].buckets[self.name]
        for key in self.keys(sha256):
            bucket.keys[key].last_modified -= timedelta(seconds=seconds)


Fault = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request on its way to the store; a fault may answer it, change it, or hang up."""

    protocol_version = "HTTP/1.1"
    server: BrokenLine
    body: bytes

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def do_any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(f"{self.command} {self.path}")
        self.answered = False
        self.server.fault(self)
        if not self.answered:
            self.pass_on()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any  # noqa: N815

    def pass_on(self, cut: Callable[[bytes], bytes] = lambda answer: answer) -> None:
        connection = http.client.HTTPConnection(*self.server.behind)
        headers = {name: value for name, value in self.headers.items() if name != "Content-Length"}
        connection.request(self.command, self.path, self.body, headers)
        answer = connection.getresponse()
        self.answer(answer.status, answer.read(), dict(answer.getheaders()), cut)
        connection.close()

    def answer(
        self,
        status: int,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        cut: Callable[[bytes], bytes] = lambda answer: answer,
    ) -> None:
        self.answered = True
        self.send_response_only(status)
        length = {} if headers and self.command == "HEAD" else {"Content-Length": str(len(body))}
        for name, value in ({} if headers is None else headers).items():
            if name not in ("Content-Length", "Connection") or (name not in length and name != "Connection"):
                self.send_header(name, value)
        for name, value in length.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(cut(body))
        if cut(body) != body:
            self.hang_up()

    def hang_up(self) -> None:
        self.answered = self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class BrokenLine(ThreadingHTTPServer):
    """Between a hub and its store; `fault` sees each request first."""

    daemon_threads = True

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        host, _, port = store.endpoint.removeprefix("http://").partition(":")
        self.behind = host, int(port)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.fault: Fault = whole
        self.seen: list[str] = []
        self.mended = threading.Event()

    def __enter__(self) -> BrokenLine:
        threading.Thread(target=self.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.mended.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A hub that hangs up is what some tests are about."""


def whole(request: Request) -> None:
    """No fault."""


def fails(request: Request) -> None:
    request.answer(500, b"<Error><Code>InternalError</Code></Error>")


def refuses_writes(request: Request) -> None:
    if request.command in ("PUT", "POST"):
        request.answer(503, b"<Error><Code>SlowDown</Code></Error>")


def is_silent(request: Request) -> None:
    request.server.mended.wait(60)
    request.hang_up()


def hangs_up(request: Request) -> None:
    request.hang_up()


def tears_what_is_put(request: Request) -> None:
    """And the store behind it believes that this was all: it looks at no checksum."""
    if request.command == "PUT":
        request.body = request.body[: len(request.body) // 2]


def tears_what_is_read(request: Request) -> None:
    if request.command == "GET":
        request.pass_on(lambda answer: answer[: len(answer) // 2])


def completes_with_an_error(request: Request) -> None:
    """What S3 may answer after it has kept the line open for a while: the status says one thing, the body another."""
    if request.command == "POST" and "uploadId" in request.path:
        request.answer(200, b'<?xml version="1.0"?><Error><Code>InternalError</Code><Message>no</Message></Error>')


def times(count: int, fault: Fault) -> Fault:
    """The fault so many times; whole from then on."""
    left = [count]

    def some(request: Request) -> None:
        if left[0]:
            left[0] -= 1
            fault(request)

    return some


def after(puts: int, fault: Fault) -> Fault:
    """Whole until so much has been put; from then on the fault."""
    left = [puts]

    def later(request: Request) -> None:
        if left[0] <= 0:
            fault(request)
        left[0] -= request.command == "PUT"

    return later
