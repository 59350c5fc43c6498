"""Reading request bodies, with a limit to each."""

from __future__ import annotations

from typing import Any, BinaryIO

from django.conf import settings
from rest_framework import parsers

from folkmoot.errors import InvalidInput, TooLarge

MAX_DEPTH = 32
"""How deep lists and objects may be nested; deeper ones are trouble for databases and for whoever reads them."""


class JSONParser(parsers.JSONParser):
    """One JSON object of a limited size and depth."""

    def parse(self, stream: BinaryIO, media_type: str | None = None, parser_context: Any = None) -> Any:
        _check_size(parser_context)
        parsed = super().parse(stream, media_type, parser_context)
        if not isinstance(parsed, dict):
            raise InvalidInput("the body must be a JSON object")
        _check_depth(parsed)
        return parsed


class AnyJSONParser(JSONParser):
    """JSON, whatever the content type says, or if it says nothing."""

    media_type = "*/*"


class FormParser(parsers.FormParser):
    """An urlencoded form of a limited size."""

    def parse(self, stream: BinaryIO, media_type: str | None = None, parser_context: Any = None) -> Any:
        _check_size(parser_context)
        return super().parse(stream, media_type, parser_context)


class MultiPartParser(parsers.MultiPartParser):
    """A form with files; of one that breaks off, or is refused half-way, nothing stays on the disk."""

    def parse(self, stream: BinaryIO, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except BaseException:
            for handler in parser_context["request"].upload_handlers:
                handler.upload_interrupted()
            raise


def _check_size(parser_context: Any) -> None:
    length = int(parser_context["request"].META.get("CONTENT_LENGTH") or 0)
    if length > settings.MAX_JSON_BYTES:
        raise TooLarge(f"the body has {length:,} bytes; the limit for one without files is {settings.MAX_JSON_BYTES:,}")


def _check_depth(parsed: Any) -> None:
    level = [parsed]
    for _ in range(MAX_DEPTH):
        inner = [value for each in level for value in (each.values() if isinstance(each, dict) else each)]
        level = [value for value in inner if isinstance(value, dict | list)]
    if level:
        raise InvalidInput(f"the request is nested too deeply; {MAX_DEPTH} levels are taken")
