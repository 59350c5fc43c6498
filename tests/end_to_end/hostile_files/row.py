"""What a row of the tables says, and what the payloads in it would leave behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

MARKER = Path(tempfile.gettempdir()) / f"folkmoot-{os.getpid()}-was-run"
"""Payloads try to make this file."""

CANARY = Path(tempfile.gettempdir()) / f"folkmoot-{os.getpid()}-canary.bin"
SECRET = b"canary-5d1f0c-nobody-is-to-see-this-outside"
"""What CANARY holds; files point to it from outside."""


class Row(NamedTuple):
    """The codes that it may be refused with (None: it is taken in), and the file, or how to make it if that is work."""

    codes: tuple[str | None, ...]
    content: bytes | Callable[[], bytes]

    def build(self) -> bytes:
        return self.content() if callable(self.content) else self.content


def refused(code: str, content: bytes | Callable[[], bytes]) -> Row:
    return Row((code,), content)


def accepted(content: bytes | Callable[[], bytes]) -> Row:
    """Sound, if unusual: it is stored, and nothing in it is run."""
    return Row((None,), content)


def either(content: bytes | Callable[[], bytes]) -> Row:
    """Broken in a way that may leave it sound: taken in, or refused as no valid file."""
    codes = (None, "invalid_file", "too_large", "unsupported_container", "non_finite")
    return Row(codes, content)
