"""A connection that is cut when its other side takes nothing of what is sent to it."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from typing import Any

from django.conf import settings
from uvicorn.protocols.http.h11_impl import H11Protocol

BUFFER_BYTES = 64 * 1024
MIN_TAKEN_BYTES = 4096
"""What has to be taken within the time-out."""


class Connection(H11Protocol):
    """HTTP over one connection. Without this, an answer would wait for ever in memory for who does not read it."""

    _next_look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # For TLS, too, which by itself lets eight times as much pile up.
        transport.set_write_buffer_limits(high=BUFFER_BYTES)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_later()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_looking()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_looking()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        # Nothing is added while writing is paused.
        self._next_look = self.loop.call_later(settings.BODY_TIMEOUT_SECONDS, self._look, self._untaken_bytes())

    def _look(self, untaken_before: int) -> None:
        if untaken_before - self._untaken_bytes() < MIN_TAKEN_BYTES:
            # Not `close`, which would first wait until everything is taken.
            self.transport.abort()
        else:
            self._look_later()

    def _stop_looking(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()

    def _untaken_bytes(self) -> int:
        """What waits here and in the system, which hardly asks for more until a good part of its own is gone."""
        socket = self.transport.get_extra_info("socket")
        (in_system,) = struct.unpack("i", fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4)))
        return int(in_system) + self.transport.get_write_buffer_size()
