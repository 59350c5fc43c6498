"""Files are sent by the event loop: the thread that found one is free before its first byte is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any, Protocol

from folkmoot.server.api.connection import Connection
from folkmoot.server.api.long_poll import Receive, Send, disconnected
from folkmoot.server.api.ranges import FileSpan

BLOCK_BYTES = 256 * 1024
"""What a download has in memory, and at most as much again on its way to the socket."""
SENT_AT_ONCE_BYTES = 16 * 2**20
"""What a thread sends at most before others have their turn."""
HAND_OVER = "folkmoot.hand_over"

WSGIApplication = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Readable(Protocol):
    """What PEP 3333 calls a file-like object."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> object: ...


def hands_over_files(application: WSGIApplication) -> WSGIApplication:
    """WSGI middleware: a file is not iterated over, but handed to the FileAnswer in the scope of ASGI."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.file_wrapper"] = environ["asgi.scope"][HAND_OVER]
        return application(environ, start_response)

    return answer


class FileAnswer:
    """The answer to one request; `readers` read the blocks of all files, and none waits for who takes them.

    Over a `connection` without TLS the system moves the bytes from the file to the socket itself.
    """

    def __init__(self, send: Send, readers: Executor, connection: Connection | None) -> None:
        self._send = send
        self._readers = readers
        self._connection = connection
        self._file: Readable | None = None
        self.has_begun = False

    def hand_over(self, file: Readable, block_bytes: int = 0) -> Iterable[bytes]:
        """What `wsgi.file_wrapper` has to be. Nothing is left to send for the bridge."""
        self._file = file
        return ()

    async def send(self, message: dict[str, Any]) -> None:
        """Pass on what the bridge sends; its end of an empty body is not the end of the file's."""
        self.has_begun = True
        if self._file is None or message["type"] != "http.response.body":
            await self._send(message)

    async def finish(self, receive: Receive) -> None:
        """Send the file that was handed over, if one was, for as long as somebody is there to take it."""
        if self._file is not None:
            gone = asyncio.ensure_future(disconnected(receive))
            try:
                if isinstance(self._file, FileSpan) and self._connection is not None:
                    await self._send_directly(self._file, self._connection, gone)
                await self._send_blocks(self._file, gone)
            finally:
                gone.cancel()
                await self._read(self._file.close)

    async def _send_directly(self, span: FileSpan, connection: Connection, gone: asyncio.Future[None]) -> None:
        plain, whole = connection.plain_socket(), span.rest
        if plain is None:
            return
        with plain:
            try:
                while span.rest and not connection.is_over:
                    await self._read(span.send, plain, SENT_AT_ONCE_BYTES)
                    await connection.until_writable(plain, gone)
            except ConnectionError:
                connection.transport.abort()
        if connection.is_over:
            await gone
        else:
            connection.count_sent(whole)

    async def _send_blocks(self, file: Readable, gone: asyncio.Future[None]) -> None:
        while not gone.done() and (block := await self._read(file.read, BLOCK_BYTES)):
            await self._send({"type": "http.response.body", "body": block, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def _read(self, call: Callable[..., Any], *arguments: Any) -> Any:
        # The disk may be slow, too, and the loop is everybody's.
        return await asyncio.get_running_loop().run_in_executor(self._readers, call, *arguments)
