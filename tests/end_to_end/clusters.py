"""A PostgreSQL cluster that is a test's own, to be restarted as it likes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ACCOUNT = "postgres"
OPTIONS = "-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -p {port}"
NO_BINARIES = "no initdb here: apt-get install postgresql"
OF_A_LOST_DATABASE = (
    r"Traceback \(most recent call last\):\n(?:[ ~^].*\n)+"
    r"(?:psycopg(?:\.errors)?\.\w+|django\.db\.utils\.(?:Operational|Interface)Error): "
)
"""A pattern of what a log may have of a database that hangs up."""


class Cluster:
    """`url` is that of its one database."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._port = _free_port()
        self.url = f"postgres://{ACCOUNT}@127.0.0.1:{self._port}/postgres"

    def make(self) -> None:
        self._run("initdb", "-U", ACCOUNT, "-A", "trust", "--no-sync", "-D", str(self._folder))

    def control(self, command: str, *arguments: str) -> None:
        """Have `pg_ctl` start, stop or restart it, and wait until it has."""
        options = [] if command == "stop" else ["-o", OPTIONS.format(port=self._port)]
        log = str(self._folder / "log")
        self._run("pg_ctl", command, "-D", str(self._folder), "-l", log, "-w", *options, *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        # PostgreSQL refuses to be root's.
        account = ["runuser", "-u", ACCOUNT, "--"] if os.geteuid() == 0 else []
        command = [*account, str(self._binaries / program), *arguments]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=100)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """One that works for as long as a `with` block; without PostgreSQL a skip, but not under CI=true."""
    binaries = _binaries()
    if binaries is None:
        if os.environ.get("CI") == "true":
            pytest.fail(NO_BINARIES)
        pytest.skip(NO_BINARIES)
    # Not pytest's folder, which is closed to other accounts.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, ACCOUNT)
        made = Cluster(binaries, folder)
        made.make()
        made.control("start")
        try:
            yield made
        finally:
            made.control("stop", "-m", "immediate")


def _binaries() -> Path | None:
    """Of the newest version; Debian keeps them where no PATH goes."""
    found = [Path(each) for each in (shutil.which("initdb"),) if each]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda each: int(each.parts[-3]))
    return found[-1].parent if found else None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
