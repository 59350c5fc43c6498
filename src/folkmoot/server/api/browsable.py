"""The API as pages, for a browser that has signed in; every program gets JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rest_framework.fields import Field, empty
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request, override_method

from folkmoot.server.api.parsers import BytesParser, JSONParser, QuestionParser

if TYPE_CHECKING:
    # Which itself asks for the renderers of the settings, these.
    from rest_framework.views import APIView


class _JSONToComplete(JSONRenderer):
    """Without what nobody has filled in, where that would be refused or mean something."""

    def render(self, data: Any, *args: Any, **kwargs: Any) -> bytes:
        fields = data.serializer.fields
        begun = {name: each for name, each in data.items() if not _is_better_left_out(each, fields.get(name))}
        return super().render(begun, *args, **kwargs)


def _is_better_left_out(value: Any, field: Field | None) -> bool:
    """A null, and what is empty although it is not so by default: `"options": {}` would take all options away."""
    if value is None or field is None:
        return value is None
    may_be_empty = field.required or field.default is not empty or getattr(field, "allow_blank", False)
    return value in ("", [], {}) and not may_be_empty


class _OfferedJSONParser(JSONParser):
    """As a form names it, by its media type even where any other would do, and how its text begins."""

    renderer_class = _JSONToComplete


class BrowserPages(BrowsableAPIRenderer):
    """Pages whose styles and scripts are files of this server: a policy that forbids all others stays in force."""

    def get_context(self, data: Any, accepted_media_type: str, renderer_context: Any) -> dict[str, Any]:
        return super().get_context(data, accepted_media_type, renderer_context) | {"code_style": ""}

    def get_rendered_html_form(self, data: Any, view: APIView, method: str, request: Request) -> Any:
        with _offering(view, method, request):
            return super().get_rendered_html_form(data, view, method, request)

    def get_raw_data_form(self, data: Any, view: APIView, method: str, request: Request) -> Any:
        with _offering(view, method, request) as offered:
            return super().get_raw_data_form(data, view, method, request) if offered else None


@contextmanager
def _offering(view: APIView, method: str, request: Request) -> Iterator[bool]:
    """Show the parsers of this method to the base class, which asks for those of the whole view.

    Yields whether a form can be sent to any of them.
    """
    with override_method(view, request, method):
        offered = [_as_offered(type(parser)) for parser in view.get_parsers()]
    before = view.parser_classes
    # JSON first: it is the only one whose text can be begun.
    view.parser_classes = sorted(offered, key=lambda each: each is not _OfferedJSONParser)
    try:
        yield BytesParser not in offered
    finally:
        view.parser_classes = before


def _as_offered(parser: type[BaseParser]) -> type[BaseParser]:
    return _OfferedJSONParser if issubclass(parser, (JSONParser, QuestionParser)) else parser


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
