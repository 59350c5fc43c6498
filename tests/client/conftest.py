"""A hub that says what a test has written for it, over real sockets."""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from folkmoot.protocol import paths


@dataclass
class Received:
    """A request as it came; `fields` and `files` of a multipart body by their names, those of a raw update alike."""

    method: str
    path: str
    query: dict
    headers: EmailMessage
    body: bytes
    fields: dict = field(default_factory=lambda: defaultdict(list))
    files: dict = field(default_factory=dict)

    def __post_init__(self):
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/"):
            message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + self.body)
            for part in message.iter_parts():
                name = part.get_param("name", header="Content-Disposition")
                if part.get_filename():
                    self.files[name] = part.get_payload(decode=True)
                else:
                    self.fields[name].append(part.get_payload(decode=True).decode())
        elif kind == "application/octet-stream":
            self.fields.update(self.query)
            self.files["model_file"] = self.body
        elif kind.startswith("application/x-www-form-urlencoded"):
            self.fields.update(parse_qs(self.body.decode()))


@dataclass
class Answer:
    """Bytes as they are, anything else as JSON. `cut`: after so many bytes of the body the connection is closed."""

    status: int = 200
    body: object = None
    headers: dict = field(default_factory=dict)
    cut: int | None = None


LOST = None
"""The request is read, and the connection closed without an answer."""


class ScriptedHub(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 50

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests = []
        self.keeps_bodies = True
        self.when_out_of_words = lambda: None
        self._scripts = defaultdict(deque)
        self._hung_up = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def on(self, method, path, *answers):
        """The next answers for a path, in their order; a callable makes one from the request.

        When they are used up, `when_out_of_words` is called; a poll is then held until the test ends.
        """
        self._scripts[method, path].extend(answers)

    def next_answer(self, request):
        self.requests.append(request)
        script = self._scripts[request.method, request.path]
        if not script and request.path.endswith("/progress/"):
            return Answer(404, {"detail": "Not found.", "code": "not_found"})  # a hub that knows no such reports
        if not script:
            self.when_out_of_words()
            if request.path == paths.NOTIFICATIONS:
                self._hung_up.wait()
            return LOST
        answer = script.popleft()
        return answer(request) if callable(answer) else answer

    def received(self, method, path):
        return [request for request in self.requests if (request.method, request.path) == (method, path)]

    def hang_up(self):
        self._hung_up.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        url = urlsplit(self.path)
        request = Received(self.command, url.path, parse_qs(url.query), self.headers, self._read())
        answer = self.server.next_answer(request)
        if answer is LOST:
            self.close_connection = True
            return
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Length": len(body), **answer.headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if answer.status not in (204, 304):
            self.wfile.write(body[: answer.cut])
        self.close_connection = answer.cut is not None

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 (the standard library's names)

    def _read(self):
        kept, left = [], int(self.headers.get("Content-Length", 0))
        while left > 0:
            chunk = self.rfile.read(min(left, 1 << 16))
            left -= len(chunk)
            if self.server.keeps_bodies:
                kept.append(chunk)
        return b"".join(kept)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub_at():
    """A function that opens a scripted hub at a port; all are closed in the end."""
    hubs = []

    def open_hub(port=0):
        hubs.append(ScriptedHub(port))
        return hubs[-1]

    yield open_hub
    for hub in hubs:
        hub.hang_up()


@pytest.fixture
def scripted(hub_at):
    return hub_at()


@pytest.fixture
def answer():
    return Answer


@pytest.fixture
def lost():
    return LOST
