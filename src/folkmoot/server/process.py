"""The server process: one port, and where no broker is set the threads that handle events."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from folkmoot.errors import Misconfigured
from folkmoot.server import environment, secret_key

logger = logging.getLogger(__name__)

FILES = 16_000
"""For ten thousand participants and all else."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
KEEP_ALIVE_SECONDS = 75
"""Longer than a poll waits, so that pollers keep their connections."""
SWITCH_SECONDS = 0.001
"""How long a thread may compute while others wait to. Each row that SQLite gives is such a wait for the thread that
reads it, so that with Python's own 5 ms many pollers would wait for seconds while the processor has nothing to do."""
GRACE_SECONDS = 10
"""How long requests and events under way may take once a process is told to stop."""
MIGRATING = 0x666F6C6B
"""The advisory lock of whoever migrates; any number that others on the same database do not use."""


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
    raise_file_limit()
    sys.setswitchinterval(SWITCH_SECONDS)
    check_certificate(serving)
    with usable_data_dir(serving.data_dir), _listening(serving) as listener:
        os.environ.setdefault("FOLKMOOT_SECURE_COOKIES", "true" if serving.tls_cert else "false")
        prepare(serving.data_dir, host=serving.host)
        _run(serving, listener, on_ready)


def raise_file_limit() -> None:
    """Have as many files open at once as the system lets this process: each poll that waits is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < FILES:
        logger.warning(
            "at most %d files may be open here, and three quarters as many participants wait at once: "
            "raise the hard limit to %d (LimitNOFILE= of a service, ulimit -Hn of a shell)",
            hard,
            FILES,
        )


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
        with migrating_alone():
            call_command("migrate", verbosity=0)
    except OperationalError as error:
        reason = " ".join(str(error).split())
        raise Misconfigured(f"the database cannot be used ({reason}); see FOLKMOOT_DATABASE_URL") from error


@contextmanager
def migrating_alone() -> Iterator[None]:
    """Of several processes that start at once on PostgreSQL one migrates, and the others wait until it has.

    However long that takes: no statement has a limit meanwhile.
    """
    from django.db import connection

    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATING])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATING])
            cursor.execute("RESET statement_timeout")


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
def usable_data_dir(data_dir: Path) -> Iterator[None]:
    """Hold the folder of an embedded hub; with a database of its own it may be shared by many processes."""
    if environment.text("FOLKMOOT_DATABASE_URL", ""):
        make_data_dir(data_dir)
        yield
    else:
        with owned_data_dir(data_dir):
            yield


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
    from folkmoot.server.background import Background
    from folkmoot.server.outbox.leases import release_leases
    from folkmoot.server.storage import get_storage

    get_storage().prepare()
    if settings.EMBEDDED:
        # The data folder is ours alone, and with it the database; another one may have other servers.
        get_storage().remove_leftovers()
        release_leases()
    config = uvicorn.Config(
        application,
        http=Connection,
        log_config=None,
        access_log=False,
        ssl_certfile=serving.tls_cert,
        ssl_keyfile=serving.tls_key,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )
    _spare_the_collector()
    background = Background()
    background.start()
    try:
        _Server(config, lambda: on_ready(serving.address(listener.getsockname()[1]))).run([listener])
    finally:
        background.stop(grace=GRACE_SECONDS)


def _spare_the_collector() -> None:
    """Have the garbage collector pass over all that is loaded by now: none of it is ever garbage.

    Otherwise it looks at several hundred thousand objects every few dozen requests.
    """
    gc.collect()
    gc.freeze()


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
        # While the loop still turns: a thread that hands something to one that does not would wait for ever.
        await asyncio.to_thread(_end_threads)


def _end_threads() -> None:
    from folkmoot.server.asgi import application
    from folkmoot.server.inference.pool import close_sandbox

    # First, so that nobody goes on waiting for a model.
    close_sandbox()
    application.wait_for_threads()
