"""The API as OpenAPI describes it: what no view says of itself, since it holds for all of them.

A view says what it takes and what it answers when all is well; what may go wrong follows from its permissions, its path
and its body.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from drf_spectacular.drainage import get_override
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import build_examples_list, force_instance
from drf_spectacular.utils import OpenApiExample, OpenApiResponse
from rest_framework.permissions import AllowAny, BasePermission, IsAuthenticated

from folkmoot.server.api.parsers import FieldsParser
from folkmoot.server.api.raw_bodies import MEDIA_TYPE
from folkmoot.server.api.serializers.examples import FILE, example_of

Schema = dict[str, Any]
ID = "3f2c1a90-6d1e-4c58-9b7a-0e5d4c3b2a19"
"""Stands for any id in examples."""
TEXT = {"type": "string"}
SECONDS = {"description": "after so many seconds", "schema": {"type": "integer", "minimum": 0}}
CODE = {"description": "what `code` is in other errors", "schema": TEXT}
ADDRESS = {
    "description": "where what was made or changed is to be found",
    "schema": {"type": "string", "format": "uri"},
}

PAGE = {
    "X-Total-Count": {"description": "with `limit`: how many there are in all", "schema": {"type": "integer"}},
    "Link": {"description": "with `limit`: where the next and the previous page are", "schema": TEXT},
}


def says(detail: str, *ids: str) -> OpenApiResponse:
    """An answer that is a sentence, and the ids that are named."""
    formats = {name: {"type": "string", "format": "uuid"} for name in ids}
    schema = {"type": "object", "properties": {"detail": TEXT, **formats}, "required": ["detail", *ids]}
    example = OpenApiExample(detail, value={"detail": detail} | dict.fromkeys(ids, ID))
    return OpenApiResponse(schema, examples=[example])


def refuses(**details: str) -> OpenApiResponse:
    """An error: the sentences that it may have, by their codes."""
    return OpenApiResponse(_of("Error"), examples=_examples(details.items()))


def invalid(*details: str, **coded: str) -> OpenApiResponse:
    """What a 400 may say: sentences, those with a code of their own by that."""
    examples = _examples([*(("invalid_value", detail) for detail in details), *coded.items()])
    schema = {"anyOf": [_of("Error"), _of("FieldErrors")]}
    return OpenApiResponse(schema, description="What came cannot be used.", examples=examples)


def _examples(details: Iterable[tuple[str, str]]) -> list[OpenApiExample]:
    return [OpenApiExample(detail, value={"detail": detail, "code": code}) for code, detail in details]


def _of(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _error(description: str, detail: str, code: str, **headers: Schema) -> Schema:
    content = {"schema": _of("Error"), "example": {"detail": detail, "code": code}}
    told = {"description": description, "content": {"application/json": content}}
    return told | {"headers": headers} if headers else told


COMPONENTS = {
    "schemas": {
        "Error": {
            "type": "object",
            "description": "What was wrong: a sentence for people, and a code that stays what it is, for programs.",
            "properties": {"detail": TEXT, "code": TEXT},
            "required": ["detail", "code"],
        },
        "FieldErrors": {
            "type": "object",
            "description": "What was wrong with each field: sentences, or the same again for the fields within.",
            "additionalProperties": {"anyOf": [{"type": "array", "items": {}}, {"type": "object"}]},
            "not": {"required": ["detail"]},
        },
    },
    "responses": {
        "400": {
            "description": "What came cannot be used.",
            "headers": {"X-Error-Code": CODE},
            "content": {
                "application/json": {
                    "schema": {"anyOf": [_of("Error"), _of("FieldErrors")]},
                    "examples": {
                        "a sentence": {"value": {"detail": "the body must be a JSON object", "code": "invalid_input"}},
                        "by field": {"value": {"name": ["This field is required."]}},
                    },
                }
            },
        },
        "401": _error(
            "Nobody has signed in, or with what is not valid.",
            "Authentication credentials were not provided.",
            "not_authenticated",
            **{"WWW-Authenticate": {"schema": TEXT}},
        ),
        "408": _error("The body came too slowly.", "the request's body did not come in time", "too_slow"),
        "413": _error("Over a limit of bytes.", "the body has 2,000,000 bytes; the limit is 1,048,576", "too_large"),
        "415": _error(
            "A body of a kind that is not taken here.",
            'Unsupported media type "text/plain" in request.',
            "unsupported_media_type",
        ),
        "422": _error("Other bytes came than were announced.", "the file has another SHA-256", "digest_mismatch"),
        "503": _error("For the moment.", "The database is busy; try again.", "unavailable", **{"Retry-After": SECONDS}),
        "507": _error("No space is left where models are kept.", "No space is left.", "storage_full"),
    },
}
"""What many operations have in common; responses by their status."""
OF_BODIES = ("408", "413", "415")
OF_FILES = ("422", "507")


NO_CSRF = _error(
    "A browser's session without the token that the page holds.",
    "CSRF Failed: CSRF token missing.",
    "permission_denied",
)


class OperationSchema(AutoSchema):
    """An operation as its view tells it, with what holds for all."""

    def get_summary(self) -> str:
        """The first clause of the description."""
        description = self.get_description()
        ends = [position for mark in ":;." if (position := description.find(mark)) > 0]
        return description[: min(ends, default=None)]

    def _get_request_body(self, direction: str = "request") -> Schema | None:
        if self.method != "DELETE" or getattr(self.view, "action", "") == "destroy":
            return super()._get_request_body(direction)
        # The library knows of no body that comes with DELETE; the seed's clients send one.
        self.method = "PUT"
        try:
            return super()._get_request_body(direction)
        finally:
            self.method = "DELETE"

    def _get_examples(
        self, serializer: Any, direction: Any, media_type: str, status_code: Any = None, extras: Any = None
    ) -> Schema:
        """Those that the view names; else the one that stands at the serializer."""
        named = super()._get_examples(serializer, direction, media_type, status_code, extras)
        if named or not (direction == "request" or str(status_code).startswith("2")):
            return named
        if media_type == MEDIA_TYPE:
            return build_examples_list([OpenApiExample("example", FILE)])
        one = getattr(serializer, "child", serializer)
        values: list[Any] = [_example(force_instance(each), direction) for each in getattr(one, "serializers", [one])]
        values = [each for each in values if each]
        if values and self._is_list_view(serializer) and get_override(serializer, "many") is not False:
            values = [values]
        return build_examples_list([OpenApiExample(_name(number), each) for number, each in enumerate(values)])

    def _get_response_bodies(self, direction: str = "response") -> Schema:
        told = super()._get_response_bodies(direction)
        if direction != "response":
            return told
        for status, response in told.items():
            response["description"] = response["description"] or HTTPStatus(int(status)).phrase
            if status in ("201", "202"):
                response.setdefault("headers", {})["Location"] = ADDRESS
            if status == "200" and self._is_list_view() and self._get_paginator():
                response.setdefault("headers", {}).update(PAGE)
            if status == "400":
                response.setdefault("headers", {})["X-Error-Code"] = CODE
        return dict(sorted((self._errors() | told).items()))

    def _errors(self) -> dict[str, Schema]:
        shared = ["503"]
        found = {}
        permissions = self.view.get_permissions()
        if self.view.get_authenticators():
            shared.append("401")
        if refusal := self._refusal(permissions):
            found["403"] = refusal
        if "{" in self.path:
            thing = getattr(self.view, "thing", "Object")
            found["404"] = _error("There is no such thing.", f"{thing} {ID} not found.", "not_found")
        body = self._get_request_body()
        if body or any(each["in"] != "path" for each in self._get_parameters()):
            shared.append("400")
        if body:
            shared += OF_BODIES
            shared += OF_FILES if self._takes_files(body) else ()
        return found | {status: {"$ref": f"#/components/responses/{status}"} for status in shared}

    def _takes_files(self, body: Schema) -> bool:
        if FieldsParser in self.view.parser_classes:
            return False
        return bool({MEDIA_TYPE, "multipart/form-data"} & body["content"].keys())

    def _refusal(self, permissions: list[BasePermission]) -> Schema | None:
        own = [each for each in permissions if not isinstance(each, (IsAuthenticated, AllowAny))]
        messages = [message for each in own if (message := getattr(each, "message", None))]
        if not own:
            return None if self.method == "GET" else NO_CSRF
        detail = messages[0] if messages else "You do not have permission to perform this action."
        return _error(_who_may(own), detail, "permission_denied")


def _example(serializer: Any, direction: str) -> dict[str, Any]:
    """Of the fields that go this way."""
    known = getattr(serializer, "fields", {})
    other_way = "read_only" if direction == "request" else "write_only"
    shown = example_of(serializer).items()
    return {name: each for name, each in shown if name in known and not getattr(known[name], other_way)}


def _name(number: int) -> str:
    return f"example {number + 1}" if number else "example"


def _who_may(permissions: list[BasePermission]) -> str:
    # The last is the strictest.
    who = (type(permissions[-1]).__doc__ or "Whose it is.").split("\n")[0]
    return f"May: {who[:1].lower()}{who[1:]}"
