"""Giving spoiled files to a reader, one after another, and watching what it does with them."""

from __future__ import annotations

import resource
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from readers import MIB, READERS, Reader

from folkmoot.errors import FolkmootError

MAX_SECONDS = 5
MAX_GROWTH = 64 * MIB
MAX_ADDRESS_SPACE = 8 << 30
FORBIDDEN = {
    "ctypes.dlopen", "exec", "import", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system",
    "pickle.find_class", "shutil.rmtree", "socket.__new__", "socket.connect", "subprocess.Popen", "urllib.Request",
}  # fmt: skip


class Finding(BaseException):
    """Not an Exception, so that no reader takes it for one of its own."""


def work(name: str, folder: Path, seconds: float, seed: str, results: Any) -> None:
    """Spoil files until the time is over; send how many were taken and refused, and at the end why it ended."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    deadline, reader, random = time.monotonic() + seconds, READERS[name], Random(f"{name} {seed}")
    sound, hostile = list(reader.sound()), list(reader.hostile())
    trial, counts = Trial(reader, folder), Counter[str]()
    try:
        trial.warm_up(sound + hostile)
        while time.monotonic() < deadline:
            content = random.choice(random.choice((sound, sound, hostile)))
            for _ in range(random.choice((1, 1, 2, 3))):
                content = random.choice(reader.mutations)(content, random)
            counts[trial.of(content)] += 1
    except BaseException:
        results.send(("counts", counts))
        results.send(("finding", traceback.format_exc()))
    else:
        results.send(("counts", counts))
        results.send(("end", ""))


class Trial:
    """Gives files to a reader, and watches it."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self._reader = reader
        self._folder = folder
        self._path = folder / "input"
        self._is_watching = False

    def warm_up(self, seeds: list[bytes]) -> None:
        """Let the reader import and keep what it wants to, before that is forbidden."""
        for content in seeds:
            self._path.write_bytes(content)
            self.attempt()
        self._most = _peak()
        signal.signal(signal.SIGPROF, _too_slow)
        sys.addaudithook(self._audit)

    def of(self, content: bytes) -> str:
        self._path.write_bytes(content)
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
        self._is_watching = True
        try:
            outcome = self.attempt()
        finally:
            self._is_watching = False
            signal.setitimer(signal.ITIMER_PROF, 0)
        if _peak() > self._most + len(content) + MAX_GROWTH:
            raise Finding(f"the process grew by {(_peak() - self._most) // MIB} MiB for a file of {len(content)} bytes")
        return outcome

    def attempt(self) -> str:
        try:
            self._reader.read(self._path, self._folder)
        except FolkmootError:
            return "refused"
        return "taken"

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_watching:
            return
        if event in FORBIDDEN:
            raise Finding(f"the reader tried {event}{arguments!r:.200}")
        if event == "open" and not str(arguments[0]).startswith(str(self._folder)):
            raise Finding(f"the reader tried to open {arguments[0]!r:.200}")


def _too_slow(*_: object) -> None:
    raise Finding(f"it takes more than {MAX_SECONDS} s")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
