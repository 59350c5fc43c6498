"""What a browser may do with an answer: nothing with one of the API, whatever names and descriptions users have put in.

Pages for people load what this server serves, and nothing that stands in the page itself.
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from folkmoot.protocol.paths import API_DOCS

GetResponse = Callable[[HttpRequest], HttpResponseBase]

PAGES = (API_DOCS, "/api/schema/redoc/")
"""They bring scripts and styles of their own."""
FOR_PEOPLE = ("/admin/", "/api-auth/")

NOTHING = "default-src 'none'; frame-ancestors 'none'"
OWN_FILES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def forbid_active_content(get_response: GetResponse) -> GetResponse:
    """Django middleware: no answer runs a script that somebody else has written."""

    def answer(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        policy = _policy_for(request, response)
        if policy:
            response["Content-Security-Policy"] = policy
        return response

    return answer


def _policy_for(request: HttpRequest, response: HttpResponseBase) -> str | None:
    if request.path in PAGES:
        return None
    # Not by its content type: only what renders such pages says that this is one.
    is_page = getattr(getattr(response, "accepted_renderer", None), "format", "") == "api"
    if is_page or request.path.startswith(FOR_PEOPLE):
        return OWN_FILES
    return NOTHING if request.path.startswith("/api/") else None
