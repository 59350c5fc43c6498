"""TCP proxies that can be cut: between a hub's processes and what they depend on, or those who ask it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from urllib.parse import SplitResult, urlsplit

OF_A_CUT_LINE = (
    r"Traceback \(most recent call last\):\n(?:[ ~^].*\n)+(?:redis\.|kombu\.|amqp\.|Connection|OSError|socket\.)"
)
"""A pattern of what a log may have of it."""


class Line:
    """Carries bytes both ways between whoever connects and the server of a URL, for as long as it is not cut.

    `until` sees all that goes to the server, a piece at a time with a function to keep facts of the connection in; as
    soon as it returns true for a piece, that piece still goes there, and no answer comes back: the connection is cut.
    With `loses_last` the piece does not get there either.
    """

    def __init__(
        self,
        url: str,
        *,
        until: Callable[[bytes, set[str]], bool] = lambda piece, facts: False,
        loses_last: bool = False,
    ) -> None:
        self._to = urlsplit(url)
        self._until = until
        self._loses_last = loses_last
        self._is_cut = False
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """That of the server, by way of this line."""
        user, at, _ = self._to.netloc.rpartition("@")
        netloc = f"{user}{at}127.0.0.1:{self._listener.getsockname()[1]}"
        return SplitResult(self._to.scheme, netloc, self._to.path, self._to.query, "").geturl()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Whoever is connected is cut off, and nobody gets through, until the block ends."""
        self._is_cut = True
        for end in list(self._open):
            _hang_up(end)
        try:
            yield
        finally:
            self._is_cut = False

    def close(self) -> None:
        _hang_up(self._listener)
        with self.cut():
            pass

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self._is_cut:
                return
            with self._connect() as server:
                self._open |= {client, server}
                back = threading.Thread(target=self._carry_back, args=(server, client), daemon=True)
                back.start()
                facts: set[str] = set()
                while piece := client.recv(65536):
                    is_last = self._until(piece, facts)
                    if is_last:
                        _hang_up(client)  # before its answer comes
                    if not (is_last and self._loses_last):
                        server.sendall(piece)
                    if is_last:
                        break
                with contextlib.suppress(OSError):
                    server.shutdown(socket.SHUT_WR)
                back.join()
                self._open -= {client, server}

    def _connect(self) -> socket.socket:
        return socket.create_connection((self._to.hostname, self._to.port))

    def _carry_back(self, server: socket.socket, client: socket.socket) -> None:
        _carry_on(server, client)


class Balancer(Line):
    """Carries each connection to one of several servers by turns, or to the next one where that takes none.

    `statuses` are those of all answers that came back.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._servers = [urlsplit(url) for url in urls]
        self._turns = count()
        self.statuses: set[int] = set()
        super().__init__(urls[0])

    def _connect(self) -> socket.socket:
        first = next(self._turns) % len(self._servers)
        for server in self._servers[first:] + self._servers[:first]:
            with contextlib.suppress(ConnectionRefusedError):
                return socket.create_connection((server.hostname, server.port))
        raise ConnectionRefusedError

    def _carry_back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(65536):
                if piece.startswith(b"HTTP/1.1 "):
                    self.statuses.add(int(piece[9:12]))
                client.sendall(piece)
        _hang_up(client)


def _carry_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    _hang_up(target)


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
