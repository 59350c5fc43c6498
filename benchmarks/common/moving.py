"""Moving and hashing bytes through the hub's HTTP server with nothing else done: what no round can be faster than."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from multiprocessing.synchronize import Barrier
from typing import Any

import httpx2

HASHED_BYTES = 2**20
SENT_BYTES = 2**18
TIMEOUT = 600


def seconds_to_move(num_bytes: int, participants: int, repeats: int) -> float:
    """For as many processes to take so many bytes each and to send as many, hashed where they arrive: on average."""
    spawn = get_context("spawn")
    begin = spawn.Barrier(participants + 1)
    with _serving(num_bytes) as url:
        movers = [spawn.Process(target=_move, args=(url, num_bytes, repeats, begin)) for _ in range(participants)]
        for mover in movers:
            mover.start()
        begin.wait(TIMEOUT)
        began = time.perf_counter()
        for mover in movers:
            mover.join()
        seconds = time.perf_counter() - began
    if any(mover.exitcode for mover in movers):
        raise RuntimeError("a process could not move its bytes")
    return seconds / repeats


def _move(url: str, num_bytes: int, repeats: int, begin: Barrier) -> None:
    mine = bytes(num_bytes)
    with httpx2.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as http:
        begin.wait(TIMEOUT)
        for _ in range(repeats):
            taken = hashlib.sha256()
            with http.stream("GET", "/") as answer:
                for block in answer.iter_bytes():
                    taken.update(block)
            http.put("/", content=_blocks(mine), headers={"Content-Length": str(num_bytes)}).raise_for_status()


def _blocks(data: bytes) -> Iterator[bytes]:
    hashed = hashlib.sha256()
    for start in range(0, len(data), SENT_BYTES):
        block = data[start : start + SENT_BYTES]
        hashed.update(block)
        yield block


@contextmanager
def _serving(num_bytes: int) -> Iterator[str]:
    spawn = get_context("spawn")
    mine, its = spawn.Pipe()
    server = spawn.Process(target=_serve, args=(num_bytes, its), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{mine.recv()}"
    finally:
        server.terminate()
        server.join()


def _serve(num_bytes: int, pipe: Pipe) -> None:
    import uvicorn
    from django.conf import settings

    settings.configure(BODY_TIMEOUT_SECONDS=TIMEOUT)
    from folkmoot.server.api.connection import Connection

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pipe.send(listener.getsockname()[1])
    config = uvicorn.Config(_Bare(num_bytes), http=Connection, lifespan="off", log_config=None, access_log=False)
    uvicorn.Server(config).run([listener])


class _Bare:
    """The ASGI application: so many bytes to whoever asks for them, and hashes of what is sent."""

    def __init__(self, num_bytes: int) -> None:
        self._bytes = bytes(num_bytes)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["method"] == "PUT":
            await self._take(receive)
            await self._answer(send, b"")
        else:
            await self._answer(send, self._bytes)

    async def _take(self, receive: Any) -> None:
        hashed, block, has_more = hashlib.sha256(), bytearray(), True
        while has_more:
            message = await receive()
            block += message["body"]
            has_more = message.get("more_body", False)
            if len(block) >= HASHED_BYTES or not has_more:
                # In a thread, as the other processor may be free.
                await asyncio.to_thread(hashed.update, bytes(block))
                block.clear()

    async def _answer(self, send: Any, body: bytes) -> None:
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(body), SENT_BYTES):
            await send({"type": "http.response.body", "body": body[start : start + SENT_BYTES], "more_body": True})
        await send({"type": "http.response.body", "body": b""})
