"""Sending a model file."""

from __future__ import annotations

import os

from django.http import FileResponse, HttpRequest
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response

from folkmoot.server.registry.downloads import Download

BLOCK_BYTES = 2**20


def model_response(request: HttpRequest, download: Download) -> HttpResponseBase:
    """The file, or 304 to who has it already; nothing is read or made for that."""
    response = get_conditional_response(request, etag=download.etag) or _file_response(download)
    response["ETag"] = download.etag
    response["Cache-Control"] = "private, no-cache"
    return response


def _file_response(download: Download) -> FileResponse:
    """Stream the file in blocks; one that was made for this answer alone has no name any more by then."""
    path, is_temporary = download.path()
    file = path.open("rb")
    if is_temporary:
        path.unlink()
    response = FileResponse(file, content_type="application/octet-stream")
    response.block_size = BLOCK_BYTES
    response["Content-Length"] = str(os.fstat(file.fileno()).st_size)
    # The seed's name for it, whatever the format: existing clients look for it.
    response["Content-Disposition"] = f'attachment; filename="model-{download.model.pk}.pt"'
    return response
