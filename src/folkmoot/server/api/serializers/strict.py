"""Fields that take nothing of another kind of JSON, and objects that take no field that they do not know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from django.db import models
from rest_framework import serializers


class StrictSerializer(serializers.Serializer):
    """Refuses fields that it does not know."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        unknown = set(data) - set(self.fields) if isinstance(data, Mapping) else ()
        if unknown:
            raise serializers.ValidationError({name: ["Unknown field."] for name in sorted(unknown)})
        return super().to_internal_value(data)


class TextField(serializers.CharField):
    """No number will do for a text."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class NumberField(serializers.FloatField):
    """`true` is no number, and neither is what is not finite."""

    def to_internal_value(self, data: Any) -> float:
        number = super().to_internal_value(data)
        if isinstance(data, bool) or not math.isfinite(number):
            self.fail("invalid")
        return number


TEXT_FIELDS = {**serializers.ModelSerializer.serializer_field_mapping, models.CharField: TextField}
"""For the `serializer_field_mapping` of serializers of what Folkmoot adds to the seed's API."""
