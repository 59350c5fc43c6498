"""Lists that come as JSON, as repeated fields of a program's form, or as one text in the form of a page."""

from __future__ import annotations

import re
from typing import Any

from rest_framework import serializers
from rest_framework.utils.html import is_html_input

SEPARATORS = re.compile(r"[\s,]+")


class _Shown(list):
    """A list that a page shows as what is entered there."""

    def __str__(self) -> str:
        return ", ".join(map(str, self))


class FormListField(serializers.ListField):
    """In a form, one text alone is divided at commas and spaces if items have none, and an empty one is no list."""

    def __init__(self, *, is_divided: bool = False, **options: Any) -> None:
        super().__init__(style={"base_template": "input.html"}, **options)
        self.is_divided = is_divided

    def get_value(self, dictionary: Any) -> Any:
        given = super().get_value(dictionary)
        return self.items(given) if is_html_input(dictionary) and given is not serializers.empty else given

    def items(self, given: list[Any]) -> list[Any]:
        """The items, of all the values that a form has for the field."""
        if len(given) > 1 or not isinstance(given[0], str):
            return _Shown(given)
        parts = SEPARATORS.split(given[0].strip()) if self.is_divided else [given[0]]
        return _Shown(part for part in parts if part)

    def get_initial(self) -> list[Any]:
        return _Shown()
