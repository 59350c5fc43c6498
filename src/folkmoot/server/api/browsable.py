"""The API as pages, for a browser that has signed in; every program gets JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer
from rest_framework.request import Request


class BrowserPages(BrowsableAPIRenderer):
    """Pages whose styles and scripts are files of this server: a policy that forbids all others stays in force."""

    def get_context(self, data: Any, accepted_media_type: str, renderer_context: Any) -> dict[str, Any]:
        return super().get_context(data, accepted_media_type, renderer_context) | {"code_style": ""}


class Negotiation(DefaultContentNegotiation):
    """Pages go to sessions alone: a program that happens to accept HTML could do nothing with them."""

    def select_renderer(
        self, request: Request, renderers: Sequence[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        if not _is_browser(request):
            renderers = [each for each in renderers if not isinstance(each, BrowserPages)]
        return super().select_renderer(request, renderers, format_suffix)


def _is_browser(request: Request) -> bool:
    if "Authorization" in request.headers or "text/html" not in request.headers.get("Accept", ""):
        return False
    # Django's, from the session: who the API's own authenticators find is not asked yet.
    return request._request.user.is_authenticated
