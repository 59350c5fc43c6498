"""Bodies come as they are: what would have to be unpacked first is refused, whatever it is for."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

GetResponse = Callable[[HttpRequest], HttpResponseBase]


def refuse_encoded_bodies(get_response: GetResponse) -> GetResponse:
    """Django middleware: 415 for a `Content-Encoding` other than `identity`."""

    def answer(request: HttpRequest) -> HttpResponseBase:
        encoding = request.headers.get("Content-Encoding", "")
        if encoding.strip().lower() in ("", "identity"):
            return get_response(request)
        detail = f"Content-Encoding {encoding[:50]} is not taken; send the body as it is"
        # RFC 9110, 12.5.3: the header says what would be taken.
        headers = {"Accept-Encoding": "identity"}
        return JsonResponse({"detail": detail, "code": "unsupported_encoding"}, status=415, headers=headers)

    return answer
