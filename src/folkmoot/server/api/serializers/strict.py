"""Fields that take nothing of another kind of JSON, where the seed's API did not take it either."""

from __future__ import annotations

from typing import Any

from django.db import models
from rest_framework import serializers


class TextField(serializers.CharField):
    """No number will do for a text."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class NumberField(serializers.FloatField):
    """`true` is no number."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool):
            self.fail("invalid")
        return super().to_internal_value(data)


TEXT_FIELDS = {**serializers.ModelSerializer.serializer_field_mapping, models.CharField: TextField}
"""For the `serializer_field_mapping` of serializers of what Folkmoot adds to the seed's API."""
