"""Serializers whose first complaint is the whole answer, as the seed has it for uploads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from folkmoot.errors import InvalidValue


class FlatSerializer(serializers.Serializer):
    """Raises InvalidValue with the first message, in place of a dictionary of all of them."""

    def run_validation(self, data: Any = serializers.empty) -> Any:
        try:
            return super().run_validation(data)
        except serializers.ValidationError as error:
            raise InvalidValue(_first(error.detail)) from error


def _first(detail: Any) -> str:
    while not isinstance(detail, str):
        detail = next(iter(detail.values() if isinstance(detail, Mapping) else detail))
    return str(detail)


def missing(field: str) -> dict[str, str]:
    """Error messages of a field that must be there."""
    sentence = f"Missing required field: {field}"
    return {"required": sentence, "null": sentence, "blank": sentence}


def whole(field: str, least: int, most: int | None = None, *, optional: bool = False) -> dict[str, Any]:
    """Bounds of an integer field, and the messages for what is outside or no integer."""
    wanted = f"{field} must be a whole number" + (f" from {least} to {most}" if most else f" of at least {least}")
    messages = {"invalid": wanted, "min_value": wanted, "max_value": wanted, "max_string_length": wanted}
    absent = {"null": wanted} if optional else missing(field)
    return {"min_value": least, "max_value": most, "error_messages": absent | messages}
