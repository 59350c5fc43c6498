"""A connection that is cut when its other side takes nothing of what is sent to it."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
import weakref
from typing import Any

import h11
from django.conf import settings
from h11._readers import ContentLengthReader
from uvicorn.protocols.http.h11_impl import H11Protocol

IN_SCOPE = "folkmoot.connection"
BUFFER_BYTES = 64 * 1024
READ_BYTES = 16 * 1024
"""What the event loop reads at once. A request that waits for its turn has little more than this, and what is kept of a
body, in memory; the threads that take in large bodies read more."""
MIN_TAKEN_BYTES = 4096
"""What has to be taken within the time-out."""


class Connection(H11Protocol):
    """HTTP over one connection. Without this, an answer would wait for ever in memory for who does not read it."""

    _next_look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # For TLS, too, which by itself lets eight times as much pile up.
        transport.set_write_buffer_limits(high=BUFFER_BYTES)
        transport.max_size = READ_BYTES
        # uvicorn copies this into the scope of each request. Weakly: a connection that is over is gone at once.
        self.app_state = {**self.app_state, IN_SCOPE: weakref.ref(self)}

    @property
    def is_over(self) -> bool:
        return self.transport.is_closing()

    def plain_socket(self) -> socket.socket | None:
        """The socket once more, for the caller to close; None where bytes are encrypted, or some still wait."""
        if self.scheme == "https" or self.is_over or self.transport.get_write_buffer_size():
            return None
        own = self.transport.get_extra_info("socket")
        return socket.fromfd(own.fileno(), own.family, own.type)

    def lend(self) -> tuple[socket.socket | None, int]:
        """The socket, to read the rest of a body from, and how many bytes that has, if it can be read so.

        Nothing else reads from it until `take_back`.
        """
        reader = self.conn._reader
        left = reader._remaining if isinstance(reader, ContentLengthReader) else 0
        plain = self.plain_socket() if left and not self.cycle.body else None
        if plain is not None:
            self.flow.pause_reading()
        return plain, left

    def take_back(self, num_bytes: int) -> None:
        """Go on behind so many bytes of the body, of which the parser knows nothing."""
        if isinstance(self.conn._reader, ContentLengthReader):
            self.conn._reader._remaining -= num_bytes
        self.handle_events()
        self.flow.resume_reading()

    async def until_writable(self, plain: socket.socket, gone: asyncio.Future[None]) -> None:
        """Wait until the other side has taken something, or is gone; who takes nothing is cut here, too."""
        if self.is_over:
            return
        writable = self.loop.create_future()
        self._look_later()
        self.loop.add_writer(plain, _settle, writable)
        try:
            await asyncio.wait((writable, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.loop.remove_writer(plain)
            self._stop_looking()

    def count_sent(self, sent: range) -> None:
        """Have the parser know of bytes of an answer's body that went past it."""
        # It only counts them: h11 documents such a stand-in, for the use of sendfile.
        self.conn.send_with_data_passthrough(h11.Data(data=sent))

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


def connection_of(scope: dict[str, Any]) -> Connection | None:
    """That of a request, unless another server has received it."""
    found = scope.get("state", {}).get(IN_SCOPE)
    return found() if found else None


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
