"""HTTP by hand, over asyncio's streams: a library would take more of the processors than the hub does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """`headers` are by their names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def head(line: str, **headers: object) -> bytes:
    """A request's, such as of `GET /`; in the names of headers, `_` stands for a hyphen."""
    lines = [f"{line} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(first.split()[1])
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    # With 304 it is said how long the body would be.
    length = 0 if status == 304 else int(headers.get("content-length", 0))
    return Answer(status, headers, await reader.readexactly(length))
