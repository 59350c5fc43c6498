"""One range of a file's bytes, as RFC 9110 has it in section 14; who asks for several may be sent the whole file."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    """The bytes of `span` of an open file, as a file to be read once; closing this closes the file."""

    def __init__(self, file: BinaryIO, span: range) -> None:
        self.close = file.close
        self._file = file
        self._left = len(span)
        file.seek(span.start)

    def read(self, size: int) -> bytes:
        block = self._file.read(min(size, self._left))
        self._left -= len(block)
        return block
