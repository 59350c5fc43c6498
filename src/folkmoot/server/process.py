"""The server process of embedded mode: one port, its worker threads, one data folder that is its own."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from folkmoot.errors import Misconfigured
from folkmoot.server import secret_key

LOOPBACK = ("127.0.0.1", "::1", "localhost")
KEEP_ALIVE_SECONDS = 75
"""Longer than a poll waits, so that pollers keep their connections."""
GRACE_SECONDS = 10
"""How long requests under way may take once the server is told to stop."""


@dataclass(frozen=True)
class Serving:
    """Where and how to serve."""

    host: str
    port: int
    data_dir: Path
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def address(self, port: int) -> str:
        scheme = "https" if self.tls_cert else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{port}"


def serve(serving: Serving, *, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `on_ready` gets the address once requests are answered.

    Raises Misconfigured, in one sentence, for whatever is wrong with the data folder, the port or the certificate.
    """
    check_certificate(serving)
    with owned_data_dir(serving.data_dir), _listening(serving) as listener:
        os.environ.setdefault("FOLKMOOT_SECURE_COOKIES", "true" if serving.tls_cert else "false")
        prepare(serving.data_dir, host=serving.host)
        _run(serving, listener, on_ready)


def prepare(data_dir: Path, *, host: str = "127.0.0.1") -> None:
    """Set Django up on this data folder and bring its database up to date."""
    make_data_dir(data_dir)
    configure(data_dir)
    # On loopback whoever can reach the server may register; elsewhere the operator makes the accounts.
    os.environ.setdefault("FOLKMOOT_REGISTRATION", "open" if host in LOOPBACK else "closed")
    secret_key.make(data_dir)

    import django
    from django.core.management import call_command
    from django.db import OperationalError

    django.setup()
    try:
        call_command("migrate", verbosity=0)
    except OperationalError as error:
        reason = " ".join(str(error).split())
        raise Misconfigured(f"the database cannot be used ({reason}); see FOLKMOOT_DATABASE_URL") from error


def configure(data_dir: Path) -> None:
    """Have Django's settings made for this data folder; nothing is loaded yet."""
    os.environ["FOLKMOOT_DATA_DIR"] = str(data_dir)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "folkmoot.server.settings")


def make_data_dir(data_dir: Path) -> None:
    """Make the folder, for its owner alone, and see that it can be written."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = data_dir / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Misconfigured(
            f"cannot write to the data folder {data_dir} ({error.strerror}); choose another with --data-dir"
        ) from error


@contextmanager
def owned_data_dir(data_dir: Path) -> Iterator[None]:
    """Hold the folder for this process: two servers on one SQLite file would release each other's leases."""
    make_data_dir(data_dir)
    with (data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Misconfigured(
                f"another Folkmoot server uses the data folder {data_dir}; stop it or choose another with --data-dir"
            ) from error
        yield


@contextmanager
def _listening(serving: Serving) -> Iterator[socket.socket]:
    try:
        family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
        listener = socket.create_server((serving.host, serving.port), family=family, backlog=2048)
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {serving.host} port {serving.port} ({error.strerror}); choose another with --port"
        ) from error
    with listener:
        # Handed on to each connection. asyncio does so itself only for sockets that name their protocol, and without
        # it the body of an answer waits 40 ms for the acknowledgement of its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


def check_certificate(serving: Serving) -> None:
    """See that certificate and key can be read and belong together."""
    if (serving.tls_cert is None) != (serving.tls_key is None):
        raise Misconfigured("--tls-cert and --tls-key go together")
    if serving.tls_cert is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(serving.tls_cert, serving.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(f"--tls-cert and --tls-key cannot be used: {error}") from error


def _run(serving: Serving, listener: socket.socket, on_ready: Callable[[str], None]) -> None:
    from django.conf import settings

    from folkmoot.server.api.connection import Connection
    from folkmoot.server.asgi import application
    from folkmoot.server.inference.pool import close_sandbox
    from folkmoot.server.outbox.events import release_leases
    from folkmoot.server.outbox.worker import Workers
    from folkmoot.server.storage import get_storage

    get_storage().prepare()
    if settings.EMBEDDED:
        # The data folder is ours alone, and with it the database; another one may have other servers.
        release_leases()
    config = uvicorn.Config(
        application,
        http=Connection,
        log_level="warning",
        access_log=False,
        ssl_certfile=serving.tls_cert,
        ssl_keyfile=serving.tls_key,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )
    workers = Workers()
    workers.start()
    try:
        _Server(config, lambda: on_ready(serving.address(listener.getsockname()[1]))).run([listener])
    finally:
        # First, so that nobody goes on waiting for a model.
        close_sandbox()
        workers.stop(grace=GRACE_SECONDS)


class _Server(uvicorn.Server):
    """Says when it is ready, and sends pollers home when it is told to stop."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, *args: Any, **kwargs: Any) -> None:
        await super().startup(*args, **kwargs)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not uvicorn's own: that raises the signal again once it has stopped, which would end this process before its
        # workers have finished what they are doing.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, *args: Any, **kwargs: Any) -> None:
        from folkmoot.server.notifications.wakeups import wakeups

        # Here and not in the signal's handler, which may interrupt whoever holds the lock that this takes.
        wakeups.close()
        await super().shutdown(*args, **kwargs)
