"""One range of a file's bytes, as RFC 9110 has it in section 14; who asks for several may be sent the whole file."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import BinaryIO

_ONE_RANGE = re.compile(r"bytes=\s*([0-9]{0,30})\s*-\s*([0-9]{0,30})\s*", re.IGNORECASE)


def requested_range(headers: Mapping[str, str], *, num_bytes: int, etag: str) -> range | None:
    """Which bytes the request asks for; None stands for the whole file, an empty range for bytes that are not there.

    What cannot be understood is as good as not said, and so is a range of a file that has changed meanwhile.
    """
    asked = _ONE_RANGE.fullmatch(headers.get("Range", ""))
    if asked is None or headers.get("If-Range", etag) != etag:
        return None
    first, last = asked.groups()
    if not first:
        return range(max(num_bytes - int(last), 0), num_bytes) if last else None
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last or num_bytes) + 1, num_bytes))


class FileSpan:
    """The bytes of `rest` of an open file, as a file to be read once or sent; closing this closes the file."""

    def __init__(self, file: BinaryIO, rest: range) -> None:
        self.close = file.close
        self.rest = rest
        self._file = file
        file.seek(rest.start)

    def read(self, size: int) -> bytes:
        block = self._file.read(min(size, len(self.rest)))
        self.rest = self.rest[len(block) :]
        return block

    def send(self, plain: socket.socket, most: int) -> None:
        """Send as much as the socket takes at once, at most so many bytes; they are never in this process's memory."""
        with suppress(BlockingIOError):
            while wanted := min(most, len(self.rest)):
                sent = os.sendfile(plain.fileno(), self._file.fileno(), self.rest.start, wanted)
                if not sent:
                    raise EOFError("the file has become shorter")
                self.rest, most = self.rest[sent:], most - sent
