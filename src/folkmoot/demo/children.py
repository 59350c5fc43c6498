"""Processes that never outlive the demo, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from folkmoot.demo.interrupts import Interrupts
from folkmoot.errors import FolkmootError

PR_SET_PDEATHSIG = 1
PATIENCE_SECONDS = 5
"""How long a process may take to end when it is asked to."""
LINES_OF_LOG = 5


class ChildEnded(FolkmootError):
    """A process that was still needed is no more; `last_words` are the end of its log."""

    def __init__(self, message: str, last_words: str) -> None:
        super().__init__(message)
        self.last_words = last_words


@dataclass(frozen=True)
class Child:
    """A process; what it prints goes to two files, so that nobody has to keep reading it."""

    name: str
    process: subprocess.Popen[bytes]
    output: Path
    log: Path

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()

    @property
    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LINES_OF_LOG:])


class Children:
    """The processes of one demo, with their files in `folder`."""

    def __init__(self, folder: Path, interrupts: Interrupts, *, patience: float = PATIENCE_SECONDS) -> None:
        self._folder = folder
        self._patience = patience
        self._interrupts = interrupts
        self._children: list[Child] = []

    def start(self, name: str, arguments: Sequence[str | Path], environment: dict[str, str]) -> Child:
        """Run Python with these arguments and variables; call it only from the main thread.

        The process is in a session of its own, so that Ctrl-C in a terminal reaches us alone.
        """
        output, log = self._folder / f"{name}.out", self._folder / f"{name}.log"
        # Between the birth of a process and its entry in the list, an interruption would forget it.
        with self._interrupts.deferred(), output.open("wb") as stdout, log.open("wb") as stderr:
            process = subprocess.Popen(  # noqa: S603 (our own program)
                [sys.executable, "-P", *arguments],
                env=_inherited() | environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=_bound_to_this_process(),
            )
            self._children.append(Child(name, process, output, log))
        return self._children[-1]

    @property
    def outputs(self) -> list[Path]:
        """What all that were ever started have printed, in the order of their start."""
        return [child.output for child in self._children]

    def check(self) -> None:
        """Raise ChildEnded if a process has ended; none should, before it is asked to."""
        for child in self._children:
            if child.exit_code is not None:
                message = f"the process {child.name} ended unexpectedly with exit code {child.exit_code}"
                raise ChildEnded(message, child.last_words)

    def stop(self) -> None:
        """End all, the youngest first: ask, wait, then insist. May be called again."""
        for child in reversed(self._children):
            child.process.terminate()
            try:
                child.process.wait(self._patience)
            except subprocess.TimeoutExpired:
                os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()


def _inherited() -> dict[str, str]:
    """Our environment, without the settings of another hub that is used for something else."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("FOLKMOOT_", "DJANGO_"))}


def _bound_to_this_process() -> Callable[[], None] | None:
    """What a child does before it becomes another program: it asks Linux to be killed as soon as we are gone."""
    if sys.platform != "linux":
        return None
    parent, libc = os.getpid(), ctypes.CDLL(None)

    def bind() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was too late to ask
            os.kill(os.getpid(), signal.SIGKILL)

    return bind
