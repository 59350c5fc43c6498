"""R26 for large files: over a line that breaks again and again, no more than a chunk travels twice for each break."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest
from harness import as_file, wait_until

from folkmoot.client import Hub

CHUNK = 1 << 18
IN_CHUNKS = {"chunked_from": CHUNK, "chunk_bytes": CHUNK}


class BadLine:
    """A TCP proxy that cuts every connection after so many bytes towards the server, and counts them all."""

    def __init__(self, url: str, *, bytes_each: int) -> None:
        self._server = urlsplit(url)
        self.bytes_each = bytes_each
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.bytes_sent = 0
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        left = self.bytes_each
        with client, socket.create_connection((self._server.hostname, self._server.port)) as server:
            threading.Thread(target=self._carry_back, args=(server, client), daemon=True).start()
            with contextlib.suppress(OSError):
                while left > 0 and (data := client.recv(min(65536, left))):
                    server.sendall(data)
                    self.bytes_sent += len(data)
                    left -= len(data)
            self.cuts += left == 0
            for end in (client, server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _carry_back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(as_file({"w": np.random.default_rng(1).normal(size=(4 << 20) // 4).astype(np.float32)}))
    return path


@pytest.fixture
def line(hub):
    line = BadLine(hub.server.url, bytes_each=3 * CHUNK)
    yield line
    line.close()


def test_a_model_arrives_over_a_line_that_breaks(hub, line, file):
    with Hub(line.url, hub.actor.token, **IN_CHUNKS) as client:
        model_id = client.upload_model("large", "over a bad line", file)

    assert hub.call(hub.actor, "GET", f"/api/models/{model_id}/").content == file.read_bytes()
    assert line.cuts >= 4
    assert line.bytes_sent < 1.6 * file.stat().st_size


def test_another_program_continues_what_one_has_begun(hub, line, file):
    line.bytes_each = 1 << 30

    def upload(url, progress=None):
        with Hub(url, hub.actor.token, **IN_CHUNKS) as client:
            return client.upload_model("continued", "by another program", file, progress=progress)

    def die_half_way(sent, size):
        if sent >= size / 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        upload(hub.server.url, die_half_way)
    model_id = upload(line.url)

    assert hub.call(hub.actor, "GET", f"/api/models/{model_id}/").content == file.read_bytes()
    assert line.bytes_sent < 0.6 * file.stat().st_size


def test_a_large_update_arrives_over_a_line_that_breaks_and_counts_once(hub, line, file):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with Hub(hub.server.url, hub.actor.token) as client:
        large = client.upload_model("large", "for a test", file)
    ann, ben = hub.participants(2)
    body = {"model_id": large, "target_num_updates": 1, "aggregation_method": "FedAvg", "clients": [ann.id, ben.id]}
    training = hub.call(hub.actor, "POST", "/api/trainings/", json=body).json()["training_id"]
    hub.start(training)
    hub.wait_for_round(training, 0)

    with Hub(line.url, ann.token, **IN_CHUNKS) as client:
        model = hub.training(training)["model"]
        update_id = client.upload_update(model, 0, 5, file, {"loss": 0.5}, sha256=digest)

    assert hub.training(training)["local_models_arrived"] == 1
    with Hub(hub.server.url, ann.token) as client:
        assert client.upload_update(model, 0, 5, file, {}, sha256=digest) == update_id
    assert line.bytes_sent < 1.6 * file.stat().st_size
    wait_until(lambda: hub.place.incoming() == [], "the incoming folder to be empty")
