"""A hub in a process of its own, with users who may speak to it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

COMMAND = "from folkmoot.cli import main; main()"
HELD_SECONDS = 300
"""How long so many participants may take to begin to ask for work."""


@dataclass(frozen=True)
class Account:
    """A user of the hub."""

    id: str
    token: str


@dataclass(frozen=True)
class Hub:
    """A server, and those who may speak to it: the first account is the actor's."""

    process: subprocess.Popen[str]
    url: str
    accounts: Sequence[Account]

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def figure(self, name: str) -> float:
        """One of those at /metrics, summed over its labels."""
        lines = httpx2.get(f"{self.url}/metrics", timeout=60).raise_for_status().text
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", lines, re.MULTILINE))

    def until_held(self, polls: int) -> None:
        """Wait until so many participants wait in long polls."""
        deadline = time.monotonic() + HELD_SECONDS
        while self.figure("folkmoot_long_polls") != polls:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.figure('folkmoot_long_polls'):.0f} of {polls} participants ask for work")
            time.sleep(0.2)


def populate(data_dir: Path, count: int) -> list[Account]:
    """Make the database with so many users; for one folder only in each process, as Django's settings are made once."""
    from folkmoot.server.process import prepare

    prepare(data_dir)
    from folkmoot.server.accounts.models import Token, User

    users = User.objects.bulk_create([User(username=f"user-{number}") for number in range(count)])
    plain = [secrets.token_hex(20) for _ in users]
    digests = zip(users, plain, strict=True)
    Token.objects.bulk_create(Token(user=user, prefix=each[:8], digest=Token.digest_of(each)) for user, each in digests)
    return [Account(str(user.pk), each) for user, each in zip(users, plain, strict=True)]


@contextlib.contextmanager
def served(data_dir: Path, accounts: Sequence[Account], **given: str) -> Iterator[Hub]:
    """A hub of its own, with the settings that are given, by their names in the environment."""
    command = [sys.executable, "-c", COMMAND, "serve", "--port=0", f"--data-dir={data_dir}"]
    settings = {**os.environ, "FOLKMOOT_METRICS": "open", "FOLKMOOT_LOG_LEVEL": "WARNING", **given}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=settings) as process:  # noqa: S603 (our own)
        try:
            announced = process.stdout.readline() if process.stdout else ""
            yield Hub(process, next(word for word in announced.split() if word.startswith("http")), accounts)
        finally:
            process.terminate()
