"""The server's side of the warm parent: starting it, having children forked, ending them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from folkmoot.errors import Unavailable
from folkmoot.sandbox.environment import environment
from folkmoot.sandbox.limits import ChildSettings
from folkmoot.sandbox.wire import Channel, Gone, Malformed, line

_REAP_SECONDS = 30


class Nursery:
    """A warm parent that is started when it is first needed, and again when it has died. Thread-safe."""

    def __init__(self, settings: ChildSettings, *, start_seconds: float) -> None:
        self._settings = settings
        self._start_seconds = start_seconds
        self._lock = threading.Lock()
        self._parent: _WarmParent | None = None

    def warm(self) -> None:
        """Start the process if there is none; it goes on importing by itself."""
        with self._lock:
            self._running()

    def fork(self) -> Nursling:
        """A new process, which has loaded nothing yet; raises Unavailable."""
        with self._lock:
            parent = self._running()
            try:
                return parent.fork(deadline=time.monotonic() + self._start_seconds)
            except (Gone, Malformed, TimeoutError) as error:
                parent.close()
                self._parent = None
                raise Unavailable("the processes that run models cannot be started; try again") from error

    def end(self, nursling: Nursling) -> None:
        """Kill a process, unless it has gone with its parent; it has no number that another could have got."""
        nursling.line.close()
        with self._lock:
            if nursling.parent is not self._parent:
                return
            try:
                nursling.parent.end(nursling.pid)
            except (Gone, Malformed, TimeoutError):
                nursling.parent.close()
                self._parent = None

    def close(self) -> None:
        with self._lock:
            if self._parent is not None:
                self._parent.close()
                self._parent = None

    def _running(self) -> _WarmParent:
        if self._parent is not None and not self._parent.is_alive:
            self._parent.close()
            self._parent = None
        if self._parent is None:
            self._parent = _WarmParent(self._settings)
        return self._parent


class Nursling:
    """A forked process and the server's end of its line."""

    def __init__(self, parent: _WarmParent, pid: int, line: socket.socket) -> None:
        self.parent = parent
        self.pid = pid
        self.line = line


class _WarmParent:
    def __init__(self, settings: ChildSettings) -> None:
        ours, theirs = line()
        with theirs:
            command = [sys.executable, "-P", "-m", "folkmoot.sandbox.warm_parent", str(theirs.fileno())]
            self._process = subprocess.Popen(  # noqa: S603 (our own module)
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment(),
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the server, which then hangs up
            )
        self._channel = Channel(ours)
        self._is_ready = False
        with contextlib.suppress(Gone):  # it is found out at the first order
            self._channel.send(settings.as_fields())

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, *, deadline: float) -> Nursling:
        if not self._is_ready:
            self._channel.receive(deadline=deadline)
            self._is_ready = True
        ours, theirs = line()
        with theirs:
            self._channel.send({"order": "fork"}, descriptor=theirs.fileno(), deadline=deadline)
            pid = self._channel.receive(deadline=deadline).fields["pid"]
        return Nursling(self, pid, ours)

    def end(self, pid: int) -> None:
        deadline = time.monotonic() + _REAP_SECONDS
        os.kill(pid, signal.SIGKILL)
        self._channel.send({"order": "reap", "pid": pid}, deadline=deadline)
        self._channel.receive(deadline=deadline)

    def close(self) -> None:
        """End the parent, and with it whatever it has forked."""
        self._channel.close()
        self._process.kill()
        self._process.wait()
