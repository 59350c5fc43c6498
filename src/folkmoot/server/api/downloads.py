"""Sending a model file, or as much of it as is asked for."""

from __future__ import annotations

from typing import Protocol

from django.http import FileResponse, HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response

from folkmoot.server.api.ranges import FileSpan, requested_range
from folkmoot.server.storage.made import OpenedFile

BLOCK_BYTES = 2**20
OTHER_ETAG = "the file has another ETag than the one that is wanted"


class Download(Protocol):
    """A file to be sent; `etag` is known before it is opened."""

    @property
    def etag(self) -> str: ...

    @property
    def filename(self) -> str: ...

    def open(self) -> OpenedFile: ...


def model_response(request: HttpRequest, download: Download) -> HttpResponseBase:
    """The file, or 304 to who has it already, or 412 to who wants another one; nothing is read or made for these."""
    response = get_conditional_response(request, etag=download.etag) or _file_response(request, download)
    if response.status_code == 412:
        body = {"detail": OTHER_ETAG, "code": "precondition_failed"}
        response = JsonResponse(body, status=412)
    response["ETag"] = download.etag
    response["Cache-Control"] = "private, no-cache"
    response["Accept-Ranges"] = "bytes"
    return response


def _file_response(request: HttpRequest, download: Download) -> HttpResponseBase:
    stored = download.open()
    num_bytes = stored.num_bytes
    span = requested_range(request.headers, num_bytes=num_bytes, etag=download.etag)
    # Ranges are defined for GET alone.
    if span is None or request.method == "HEAD":
        return _sent(request, download, stored, range(num_bytes))
    if not span:
        stored.file.close()
        return _not_satisfiable(num_bytes)
    response = _sent(request, download, stored, span)
    response.status_code = 206
    response["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{num_bytes}"
    return response


def _sent(request: HttpRequest, download: Download, stored: OpenedFile, span: range) -> FileResponse:
    """Those bytes; to HEAD only what there is to say about them."""
    sent = FileSpan(stored.file, span if request.method == "GET" else range(0))
    response = FileResponse(sent, content_type="application/octet-stream")
    response.block_size = BLOCK_BYTES  # for servers that iterate over it
    response["Content-Length"] = str(len(span))
    response["Content-Disposition"] = f'attachment; filename="{download.filename}"'
    # Of the whole file, also where a part is sent: with the last part the receiver has it all.
    response["X-Content-SHA256"] = stored.sha256
    return response


def _not_satisfiable(num_bytes: int) -> JsonResponse:
    detail = f"the file has {num_bytes:,} bytes, and none of those that were asked for"
    body = {"detail": detail, "code": "range_not_satisfiable"}
    return JsonResponse(body, status=416, headers={"Content-Range": f"bytes */{num_bytes}"})
