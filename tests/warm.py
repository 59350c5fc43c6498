"""`folkmoot` commands in processes that need not import everything first: half of a server's start is imports.

A process of its own has imported the libraries, and whatever of Folkmoot needs no settings; each command is a fork of
it. From there on all is as if it had been started as usual: its environment, its folder, its files, its exit. Only
passwords are hashed quickly.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from tempfile import TemporaryFile

LIBRARIES = (
    *("folkmoot.cli.app", "folkmoot.aggregation", "folkmoot.server.process"),
    *("a2wsgi", "argon2", "dj_database_url", "docutils.core", "jsonschema", "PIL.Image", "psycopg", "requests", "yaml"),
    *("celery.apps.worker", "celery.concurrency.thread", "kombu.transport.pyamqp", "kombu.transport.redis"),
    *("uvicorn", "uvicorn.loops.auto", "uvicorn.protocols.http.h11_impl", "whitenoise.middleware"),
    *("django.contrib.admin.options", "django.contrib.postgres.fields", "django.core.management.commands.migrate"),
    *("django.db.backends.sqlite3.base", "django.db.backends.postgresql.base", "django.db.migrations.executor"),
    *(
        "docutils.parsers.rst.states",
        "drf_spectacular.drainage",
        "inflection",
        "prometheus_client",
        "pygments.formatters.html",
    ),
    *("pygments.lexers.special", "pythonjsonlogger.json", "statistics", "uritemplate"),
    "django.test",
)
SIZE = 16
"""Of the two messages about a process: its id, and its exit code as `subprocess` has it."""


class Process:
    """As much of `subprocess.Popen` as the tests of servers need."""

    def __init__(self, line: int) -> None:
        self._line = line
        self.pid = int(os.read(line, SIZE))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(TimeoutExpired):
            self.wait(timeout=0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._line], [], [], timeout)[0]:
                raise TimeoutExpired("folkmoot", timeout or 0)
            self.returncode = int(os.read(self._line, SIZE))
            os.close(self._line)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    folder: Path | None = None,
    program: Path | None = None,
    without: Sequence[str] = (),
    reads: int | None = None,
    prints: int,
    errors: int | None = None,
) -> Process:
    """Start `folkmoot` with these arguments, in this folder or in ours; its processes are those of its group.

    Instead of `folkmoot` it may be another `program`, a file that needs none of its neighbours.
    `without` are packages that are as if they were not installed; none of LIBRARIES, which it has already.
    The last three are file descriptors: of what it reads, nothing if not given; of what it prints; of its errors,
    which go where the rest goes if not given.
    """
    ours, theirs = os.pipe()
    command = [str(program or "folkmoot"), *arguments]
    how = {"env": dict(env), "folder": str(folder or Path.cwd()), "without": list(without)}
    request = json.dumps({"command": command, **how}).encode()
    warm = _warm_process()
    with Path(os.devnull).open() as nothing:
        files = [nothing.fileno() if reads is None else reads, prints, prints if errors is None else errors]
        socket.send_fds(warm, [len(request).to_bytes(4, "big")], [theirs, *files])
    warm.sendall(request)
    os.close(theirs)
    return Process(ours)


def run(
    arguments: Sequence[str], *, env: Mapping[str, str], folder: Path, without: Sequence[str] = (), typed: str = ""
) -> CompletedProcess[str]:
    """Run `folkmoot` to its end, for a minute at most."""
    with TemporaryFile("w+") as reads, TemporaryFile("w+") as prints, TemporaryFile("w+") as errors:
        reads.write(typed)
        reads.seek(0)
        files = {"reads": reads.fileno(), "prints": prints.fileno(), "errors": errors.fileno()}
        process = start(arguments, env=env, folder=folder, without=without, **files)
        try:
            code = process.wait(timeout=60)
        finally:
            process.kill()
        prints.seek(0)
        errors.seek(0)
        return CompletedProcess(arguments, code, prints.read(), errors.read())


@cache
def _warm_process() -> socket.socket:
    """The line to the process that forks; it ends when the line is cut."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, __file__, str(theirs.fileno())]
        subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    return ours


def _fork_when_asked(line: socket.socket) -> None:
    """Return in the forks, each of which then runs its command; end with the line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        size, descriptors, _, _ = socket.recv_fds(line, 4, 4)
        if not size:
            sys.exit()
        request = json.loads(line.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
        if not os.fork():
            line.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            about, *files = descriptors
            _keep(about, files)
            _become(files, **request)
            return
        for descriptor in descriptors:
            os.close(descriptor)


def _keep(about: int, files: list[int]) -> None:
    """Fork once more and return in the fork; this process stays to tell its id and how it ends."""
    if pid := os.fork():
        os.setpgid(pid, pid)
        for file in files:
            os.close(file)
        os.write(about, b"%d" % pid)
        _, status = os.waitpid(pid, 0)
        os.write(about, b"%d" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    os.close(about)


def _become(files: list[int], *, command: list[str], env: dict[str, str], folder: str, without: list[str]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    assert not sys.modules.keys() & set(without)
    sys.modules.update(dict.fromkeys(without))
    sys.argv = command


def _make_passwords_quick() -> None:
    """Argon2 is slow on purpose; that it is what the settings name has a test of its own."""
    from django.contrib.auth.hashers import Argon2PasswordHasher

    Argon2PasswordHasher.time_cost = Argon2PasswordHasher.parallelism = 1
    Argon2PasswordHasher.memory_cost = 8


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    _make_passwords_quick()
    # What is here by now is never garbage: a fork's collector would only copy all pages of it.
    gc.collect()
    gc.freeze()
    _fork_when_asked(socket.socket(fileno=int(sys.argv[1])))
    if sys.argv[0] == "folkmoot":
        from folkmoot.cli import main

        main()
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
