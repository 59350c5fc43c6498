"""Reading request bodies, with a limit to each."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from django.conf import settings
from django.http import QueryDict
from rest_framework import parsers
from rest_framework.exceptions import ParseError
from rest_framework.utils.json import strict_constant

from folkmoot.errors import InvalidInput, TooLarge

MAX_DEPTH = 32
"""How deep lists and objects may be nested; deeper ones are trouble for databases and for whoever reads them."""
# JSON can spell them, but a lone half of a surrogate pair cannot be sent, and PostgreSQL keeps no NUL.
NO_TEXT = re.compile(r"[\0\ud800-\udfff]")


class JSONParser(parsers.JSONParser):
    """One JSON object of a limited size and depth, all of its text such as can be kept and shown."""

    def parse(self, stream: BinaryIO, media_type: str | None = None, parser_context: Any = None) -> Any:
        _check_size(parser_context, settings.MAX_JSON_BYTES)
        parsed = _object(stream, parser_context, _parsed)
        _check_contents(parsed)
        return parsed


class QuestionParser(parsers.BaseParser):
    """A question to a model in JSON. The numbers in `model_input` may be many: they are checked later, as an array."""

    # No JSONParser: the bodies of those are read ahead, and there Django has a limit of its own.
    media_type = "application/json"

    def parse(self, stream: BinaryIO, media_type: str | None = None, parser_context: Any = None) -> Any:
        _check_size(parser_context, settings.MAX_INFERENCE_BYTES)
        parsed = _object(stream, parser_context, _parsed_quickly)
        is_numbers = isinstance(parsed.get("model_input"), list)
        _check_contents({name: each for name, each in parsed.items() if not is_numbers or name != "model_input"})
        return parsed


def json_field(name: str, text: str) -> Any:
    """What a field of a form holds as JSON, checked like a body; raises InvalidInput."""
    try:
        parsed = _parsed(text)
    except ValueError as error:
        raise InvalidInput(f"{name} is not valid JSON") from error
    _check_contents({name: parsed})
    return parsed


def _object(stream: BinaryIO, parser_context: Any, read: Callable[[str], Any]) -> dict[str, Any]:
    encoding = (parser_context or {}).get("encoding") or settings.DEFAULT_CHARSET
    try:
        parsed = read(stream.read().decode(encoding))
    except (ValueError, LookupError) as error:
        raise ParseError("the body is not valid JSON in the charset that it names") from error
    if not isinstance(parsed, dict):
        raise InvalidInput("the body must be a JSON object")
    return parsed


def _parsed_quickly(text: str) -> Any:
    """Without a call for each number: one that is too large comes out as an infinity, and NaN as itself."""
    return json.loads(text, object_pairs_hook=_without_duplicates)


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=strict_constant, parse_float=_finite)


class AnyJSONParser(JSONParser):
    """JSON, whatever the content type says, or if it says nothing."""

    media_type = "*/*"


class FormParser(parsers.FormParser):
    """An urlencoded form of a limited size."""

    def parse(self, stream: BinaryIO, media_type: str | None = None, parser_context: Any = None) -> Any:
        _check_size(parser_context, settings.MAX_JSON_BYTES)
        with _charset_checked():
            return super().parse(stream, media_type, parser_context)


class MultiPartParser(parsers.MultiPartParser):
    """A form with files and little text; of one that breaks off, or is refused, nothing stays on the disk."""

    text_limit = "MAX_JSON_BYTES"

    def parse(self, stream: BinaryIO, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            with _charset_checked():
                parsed = super().parse(stream, media_type, parser_context)
            _check_text(parsed.data, getattr(settings, self.text_limit))
            return parsed
        except BaseException:
            for handler in parser_context["request"].upload_handlers:
                handler.upload_interrupted()
            raise


class QuestionFormParser(MultiPartParser):
    """A question to a model in a form; its input may be text, too."""

    text_limit = "MAX_INFERENCE_BYTES"

    def parse(self, stream: BinaryIO, media_type: str | None = None, parser_context: Any = None) -> Any:
        _check_size(parser_context, settings.MAX_INFERENCE_BYTES)
        return super().parse(stream, media_type, parser_context)


class BytesParser(parsers.BaseParser):
    """Bytes and no form: the view reads them itself, and they stay where they are until it does."""

    media_type = "application/octet-stream"

    def parse(self, stream: BinaryIO, media_type: str | None = None, parser_context: Any = None) -> dict[str, Any]:
        return {}


class FieldsParser(MultiPartParser):
    """A form as browsers send it where no file is wanted, of a limited size."""

    def parse(self, stream: BinaryIO, media_type: str | None = None, parser_context: Any = None) -> Any:
        _check_size(parser_context, settings.MAX_JSON_BYTES)
        return super().parse(stream, media_type, parser_context)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two values one reader takes the first and another the last.
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise InvalidInput("the body has a key twice in one object")
    return unique


def _check_size(parser_context: Any, max_bytes: int) -> None:
    length = int(parser_context["request"].META.get("CONTENT_LENGTH") or 0)
    if length > max_bytes:
        raise TooLarge(f"the body has {length:,} bytes; the limit here is {max_bytes:,}")


def _check_text(fields: QueryDict, most: int) -> None:
    length = sum(len(name) + sum(map(len, values)) for name, values in fields.lists())
    if length > most:
        raise TooLarge(f"the form's fields have {length:,} characters of text; the limit here is {most:,}")


def _check_contents(parsed: dict[str, Any]) -> None:
    """Level by level: recursion would end where Python's stack does."""
    level: list[Any] = [parsed]
    for _ in range(MAX_DEPTH):
        parts = [part for each in level for part in _parts(each)]
        if any(isinstance(part, str) and NO_TEXT.search(part) for part in parts):
            raise InvalidInput("the request has a text with a NUL or with half of a surrogate pair in it")
        level = [part for part in parts if isinstance(part, dict | list)]
    if level:
        raise InvalidInput(f"the request is nested too deeply; {MAX_DEPTH} levels are taken")


def _parts(value: dict[str, Any] | list[Any]) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    else:
        yield from value


def _finite(text: str) -> float:
    # Python reads 1e400 as an infinity, which JSON cannot say and databases refuse.
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large")
    return number


@contextmanager
def _charset_checked() -> Iterator[None]:
    try:
        yield
    except UnicodeError as error:
        raise InvalidInput("the body is not in the charset that it names") from error
