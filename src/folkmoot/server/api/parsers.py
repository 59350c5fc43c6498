"""Reading request bodies, with a limit to each."""

from __future__ import annotations

from typing import Any, BinaryIO

from django.conf import settings
from rest_framework import parsers

from folkmoot.errors import InvalidInput, TooLarge


class JSONParser(parsers.JSONParser):
    """One JSON object of a limited size."""

    def parse(self, stream: BinaryIO, media_type: str | None = None, parser_context: Any = None) -> Any:
        request = (parser_context or {})["request"]
        length = int(request.META.get("CONTENT_LENGTH") or 0)
        if length > settings.MAX_JSON_BYTES:
            raise TooLarge(f"the request has {length:,} bytes of JSON; the limit is {settings.MAX_JSON_BYTES:,}")
        parsed = super().parse(stream, media_type, parser_context)
        if not isinstance(parsed, dict):
            raise InvalidInput("the body must be a JSON object")
        return parsed


class AnyJSONParser(JSONParser):
    """JSON, whatever the content type says, or if it says nothing."""

    media_type = "*/*"
