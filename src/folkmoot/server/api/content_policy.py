"""What a browser may do with an answer of the API: nothing, whatever names and descriptions users have put into it."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from folkmoot.protocol.paths import API_DOCS

GetResponse = Callable[[HttpRequest], HttpResponseBase]

PAGES = (API_DOCS, "/api/schema/redoc/")
"""They bring scripts and styles of their own."""


def forbid_active_content(get_response: GetResponse) -> GetResponse:
    """Django middleware: answers of the API load, run and are framed by nothing."""

    def answer(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if request.path.startswith("/api/") and request.path not in PAGES:
            response["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
        return response

    return answer
