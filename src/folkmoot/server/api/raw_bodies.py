"""Bodies that are bytes and nothing else: they stream to disk, and are hashed on the way."""

from __future__ import annotations

from collections.abc import Iterator

from django.http.request import UnreadablePostError
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.request import Request

from folkmoot.errors import IncompleteRequest, TooLarge
from folkmoot.server.faults import fault_point
from folkmoot.server.storage.upload import CHUNK_BYTES, IncomingFile

MEDIA_TYPE = "application/octet-stream"


def receive_body(request: Request, *, limit: int) -> IncomingFile:
    """The whole body as a file, which has the SHA-256 that was announced, if one was.

    Raises TooLarge as soon as it is known to have more than `limit` bytes. The caller closes the file.
    """
    _check_media_type(request)
    announced = _announced_length(request)
    if announced is not None and announced > limit:
        raise TooLarge(f"the body has {announced:,} bytes; the limit is {limit:,}")
    fault_point("upload.before_stream")
    incoming = IncomingFile("the body")
    try:
        _receive(request, incoming, announced, limit)
        incoming.check_digest(request.headers.get("X-Content-SHA256"))
    except BaseException:
        incoming.close()
        raise
    return incoming


def _receive(request: Request, incoming: IncomingFile, announced: int | None, limit: int) -> None:
    for block in _blocks(request, announced):
        if (incoming.size or 0) + len(block) > limit:
            raise TooLarge(f"the body has more than {limit:,} bytes, the limit")
        incoming.append(block)
        fault_point("upload.mid_stream")
    if announced is not None and incoming.size != announced:
        raise IncompleteRequest(f"{incoming.size:,} bytes came, announced were {announced:,}; the request broke off")


def _blocks(request: Request, announced: int | None) -> Iterator[bytes]:
    # Not the request itself, which takes a body of no announced length for none.
    stream = request._request.META["wsgi.input"]
    left = announced
    while left is None or left > 0:
        try:
            block = stream.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES))
        except OSError as error:
            raise UnreadablePostError(*error.args) from error
        if not block:
            return
        yield block
        left = None if left is None else left - len(block)


def _announced_length(request: Request) -> int | None:
    """None for a body in the chunks of HTTP, which ends where it says so."""
    if request.headers.get("Transfer-Encoding"):
        return None
    return int(request.META.get("CONTENT_LENGTH") or 0)


def _check_media_type(request: Request) -> None:
    # `curl -T` sends none.
    if (request.content_type or MEDIA_TYPE).partition(";")[0].strip().lower() != MEDIA_TYPE:
        raise UnsupportedMediaType(request.content_type, f"send the bytes as they are, as {MEDIA_TYPE}")
