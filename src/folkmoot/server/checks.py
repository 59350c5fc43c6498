"""What is right and what is wrong with this deployment, found without changing anything in it."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import django
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from folkmoot.errors import FolkmootError, Misconfigured
from folkmoot.sandbox import Protection, protections
from folkmoot.server.process import configure, make_data_dir


class Status(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, but not all of it, or not as well as it could."""
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do about it where something is amiss."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def findings(data_dir: Path) -> Iterator[Finding]:
    """Look at everything, one thing after another; to be called once in a process."""
    yield _data_folder(data_dir)
    try:
        configure(data_dir)
        django.setup()
        yield from _settings()
    except (Misconfigured, ImproperlyConfigured, ImportError) as error:
        yield Finding("settings", Status.WRONG, _one_line(error), "correct it; docs/configuration.md has all settings")
    else:
        if data_dir.is_dir():
            yield _free_space(data_dir)
        yield _storage()
        yield _database()
        if not settings.EMBEDDED:
            yield from _clock()
        if settings.BROKER_URL:
            yield _broker()
    for library in LIBRARIES:
        yield _library(library)
    yield from _sandbox()


def _data_folder(data_dir: Path) -> Finding:
    name = "data folder"
    if not os.access(data_dir, os.F_OK):
        return Finding(
            name, Status.WRONG, f"there is no {data_dir}", "start folkmoot serve once, or name another with --data-dir"
        )
    try:
        make_data_dir(data_dir)
    except Misconfigured as error:
        detail, _, remedy = error.message.partition("; ")
        return Finding(name, Status.WRONG, detail, remedy)
    return Finding(name, Status.OK, f"{data_dir} can be written")


def _free_space(data_dir: Path) -> Finding:
    free, wanted = shutil.disk_usage(data_dir).free, settings.MAX_UPLOAD_BYTES
    detail = f"{free / 2**30:.1f} GiB in the data folder"
    if free >= wanted:
        return Finding("free space", Status.OK, detail)
    detail += f", less than the largest model file that is taken, {wanted / 2**30:.1f} GiB"
    return Finding("free space", Status.WARNING, detail, "make space, or lower FOLKMOOT_MAX_UPLOAD_BYTES")


# TLS ends in `folkmoot serve`, which has no other port, or in a proxy, whose affair these two are.
_NOT_OURS = {"security.W004", "security.W008"}


def _settings() -> list[Finding]:
    """What Django's own checks say, those for deployments among them."""
    found = [message for message in checks.run_checks(include_deployment_checks=True) if message.id not in _NOT_OURS]
    amiss = [
        Finding(
            "settings",
            Status.WRONG if message.is_serious() else Status.WARNING,
            f"{_one_line(message.msg)} ({message.id})",
            _one_line(message.hint or "see docs/configuration.md"),
        )
        for message in found
    ]
    return amiss or [Finding("settings", Status.OK, "nothing amiss")]


def _storage() -> Finding:
    from folkmoot.server.storage import get_storage

    try:
        return Finding("storage", Status.OK, get_storage().check())
    except FolkmootError as error:
        return Finding("storage", Status.WRONG, _one_line(error), "see FOLKMOOT_STORAGE_URL in docs/configuration.md")


def _database() -> Finding:
    from django.db import Error, connection
    from django.db.migrations.executor import MigrationExecutor

    # Connecting would make an empty one.
    if settings.EMBEDDED and not os.access(str(settings.DATABASES["default"]["NAME"]), os.F_OK):
        return Finding("database", Status.WRONG, "there is none in the data folder", _MIGRATE)
    try:
        executor = MigrationExecutor(connection)
        missing = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    except Error as error:
        return Finding("database", Status.WRONG, f"cannot be used ({_one_line(error)})", "see FOLKMOOT_DATABASE_URL")
    if missing:
        return Finding("database", Status.WRONG, f"migrations that are not applied: {missing}", _MIGRATE)
    version = ".".join(map(str, connection.get_database_version()))
    return Finding("database", Status.OK, f"{connection.display_name} {version}, all migrations are applied")


def _clock() -> Iterator[Finding]:
    """Deadlines go by the database's clock, but tokens expire, and files age, by this machine's."""
    from django.db import Error

    from folkmoot.server import clock

    try:
        ahead = (datetime.now(UTC) - clock.now()).total_seconds()
    except Error:
        return  # which the finding on the database has said
    detail = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the database's"
    if abs(ahead) <= CLOCK_SECONDS:
        yield Finding("clock", Status.OK, detail)
    else:
        yield Finding("clock", Status.WARNING, detail, "have both machines set their clocks by NTP")


def _broker() -> Finding:
    from folkmoot.server import broker

    name, fault = broker.name_of(settings.BROKER_URL), broker.fault_of(settings.BROKER_URL)
    if fault:
        return Finding("broker", Status.WRONG, f"{name} does not answer ({fault})", "see FOLKMOOT_BROKER_URL")
    return Finding("broker", Status.OK, f"{name} answers")


CLOCK_SECONDS = 5
_MIGRATE = "start folkmoot serve once, which brings it up to date"


@dataclass(frozen=True)
class _Library:
    name: str
    module: str
    extra: str
    purpose: str
    without: Status = Status.WARNING


LIBRARIES = (
    _Library("numba", "numba", "fast", "aggregates large models several times as fast"),
    _Library("torch", "torch", "torch", "predictions of torch models"),
    _Library("onnxruntime", "onnxruntime", "onnx", "predictions of ONNX models"),
    _Library("Pillow", "PIL", "server", "predictions for images; the hub does not start without it", Status.WRONG),
)


def _library(library: _Library) -> Finding:
    # Imported rather than looked for: one that is there may lack a shared library of its own.
    try:
        version = importlib.import_module(library.module).__version__
    except (ImportError, OSError) as error:
        detail = f"cannot be imported ({_one_line(error)}): {library.purpose}"
        return Finding(library.name, library.without, detail, f"pip install 'folkmoot[{library.extra}]'")
    return Finding(library.name, Status.OK, f"{version}: {library.purpose}")


_PROTECTS_FROM = {
    Protection.RESOURCE_LIMITS: "a model that takes all memory or processor time, starts processes or fills the disk",
    Protection.NO_NEW_PRIVILEGES: "a model that gains rights by starting another program",
    Protection.SECCOMP: "a model that opens files or sockets, starts processes or sends signals",
    Protection.LANDLOCK: "a model that opens files or ports",
    Protection.NETWORK_NAMESPACE: "a model that sends what it is asked over the network",
    Protection.OTHER_USER: "a model that does what the server's own user may do",
}
_WHERE = {
    Protection.RESOURCE_LIMITS: "applies on every Linux: see what forbids setrlimit",
    Protection.NO_NEW_PRIVILEGES: "applies on every Linux: see what forbids prctl",
    Protection.SECCOMP: "applies on x86-64 and ARM64 where the kernel is built with it",
    Protection.LANDLOCK: "applies from Linux 5.13 on; a container's own seccomp profile has to allow it",
    Protection.NETWORK_NAMESPACE: "applies for root, or where users may make namespaces",
    Protection.OTHER_USER: "applies for root; for others seccomp and Landlock have to suffice",
}
_EVERYWHERE = {Protection.RESOURCE_LIMITS, Protection.NO_NEW_PRIVILEGES}
_CLOSE_FILES = {Protection.SECCOMP, Protection.LANDLOCK}


def _sandbox() -> Iterator[Finding]:
    """Which protections of docs/sandbox.md apply here; of the two that close files one has to."""
    try:
        granted = protections()
    except subprocess.CalledProcessError as error:
        detail = f"no process can be confined, so nothing is predicted ({error})"
        yield Finding("sandbox", Status.WRONG, detail, "run the hub on Linux; see docs/sandbox.md")
        return
    needed = _EVERYWHERE | (set() if granted & _CLOSE_FILES else _CLOSE_FILES)
    for protection, danger in _PROTECTS_FROM.items():
        name = f"sandbox, {protection}"
        if protection in granted:
            yield Finding(name, Status.OK, f"protects from {danger}")
        else:
            status = Status.WRONG if protection in needed else Status.WARNING
            yield Finding(name, status, f"does not apply; it would protect from {danger}", _WHERE[protection])


def _one_line(said: object) -> str:
    return " ".join(str(said).split())
