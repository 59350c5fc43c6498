"""Models, updates and metrics."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_field
from rest_framework import serializers

from folkmoot.errors import InvalidValue, NotAvailableYet
from folkmoot.server.api.serializers.flat import FlatSerializer, missing, whole
from folkmoot.server.registry.models import Metric, Model
from folkmoot.server.registry.services import checked_metrics
from folkmoot.server.trainings.models import Update

MAX_ROUND = 10**6
MAX_DIMENSIONS = 32
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class ModelSerializer(serializers.ModelSerializer):
    """A model without its weights."""

    preprocessing = serializers.SerializerMethodField()
    has_preprocessing = serializers.SerializerMethodField()

    class Meta:
        model = Model
        fields = (
            "id",
            "owner",
            "round",
            "name",
            "description",
            "input_shape",
            "preprocessing",
            "has_preprocessing",
        )
        read_only_fields = fields

    # The seed's clients read these two; models with a preprocessing part are refused as they come in.
    def get_preprocessing(self, model: Model) -> str | None:
        return None

    def get_has_preprocessing(self, model: Model) -> bool:
        return False


class LocalModelSerializer(serializers.ModelSerializer):
    """An update as a model: it is one until its round is aggregated."""

    owner = serializers.UUIDField(source="participant_id", read_only=True)
    round = serializers.IntegerField(source="round.number", read_only=True)
    base_model = serializers.UUIDField(source="round.training.model_id", read_only=True)
    sample_size = serializers.IntegerField(source="num_examples", read_only=True)

    class Meta:
        model = Update
        fields = ("id", "owner", "round", "base_model", "sample_size")
        read_only_fields = fields


ANY_MODEL = PolymorphicProxySerializer(
    "AnyModel", [ModelSerializer, LocalModelSerializer], resource_type_field_name=None, many=True
)


def shown(models: Iterable[Model], updates: Iterable[Update], context: dict[str, Any]) -> list[dict[str, Any]]:
    """Models of both kinds in one list, the local ones at its end."""
    globally = ModelSerializer(models, many=True, context=context).data
    return [*globally, *LocalModelSerializer(updates, many=True, context=context).data]


@extend_schema_field({"type": "integer", "nullable": True, "minimum": 1})
class DimensionField(serializers.Field):
    """A size, or `None` or `null` for a free one."""

    def to_internal_value(self, data: Any) -> int | None:
        if data in ("None", "null", "", None):
            return None
        if not str(data).isascii() or not str(data).isdigit() or not 0 < int(str(data)[:20]) < 2**31:
            raise serializers.ValidationError("input_shape must be made of positive whole numbers, or None where free")
        return int(data)

    def to_representation(self, value: Any) -> Any:
        return value


def one_line(text: str) -> None:
    """Refuse what a terminal or a header would take for more than text."""
    if CONTROL.search(text):
        raise serializers.ValidationError("a name is one line of text, without control characters")


def _file(field: str) -> serializers.FileField:
    sentence = f"No uploaded file '{field}' found."
    messages = dict.fromkeys(("required", "null", "invalid", "no_name"), sentence)
    return serializers.FileField(error_messages=messages, allow_empty_file=True)


class ModelFieldsSerializer(FlatSerializer):
    """What is said about a model whose file comes by itself."""

    name = serializers.CharField(max_length=255, error_messages=missing("name"), validators=[one_line])
    description = serializers.CharField(max_length=10_000, error_messages=missing("description"))
    input_shape = serializers.ListField(
        child=DimensionField(allow_null=True), required=False, max_length=MAX_DIMENSIONS
    )
    round = serializers.IntegerField(default=0, **whole("round", 0, MAX_ROUND))
    type = serializers.ChoiceField(("GLOBAL", "SWAG", "MEAN"), default="GLOBAL")
    model_preprocessing_file = serializers.FileField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.pop("type") != "GLOBAL":
            raise NotAvailableYet("models of type SWAG and MEAN are not available yet")
        if attrs.pop("model_preprocessing_file", None) is not None:
            raise NotAvailableYet("model_preprocessing_file is not available yet")
        return attrs


class ModelUploadSerializer(ModelFieldsSerializer):
    """A model file with its name."""

    model_file = _file("model_file")


class MetricsSerializer(FlatSerializer):
    """Names and values, paired by their places."""

    metric_names = serializers.ListField(child=serializers.CharField(allow_blank=False), default=list)
    metric_values = serializers.ListField(child=serializers.JSONField(), default=list)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        names, values = attrs.pop("metric_names"), attrs.pop("metric_values")
        if not names or not values:
            raise InvalidValue("Metric names or values are missing")
        return {"metrics": checked_metrics(names, values)}


class UpdateFieldsSerializer(MetricsSerializer):
    """What is said about an update. `owner` is accepted and ignored: the sender owns it."""

    round = serializers.IntegerField(**whole("round", 0, MAX_ROUND))
    sample_size = serializers.IntegerField(**whole("sample_size", 1, settings.MAX_NUM_EXAMPLES))
    owner = serializers.CharField(required=False, allow_blank=True, write_only=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs.pop("owner", None)
        attrs["metrics"] = checked_metrics(attrs.pop("metric_names"), attrs.pop("metric_values"))
        return attrs


class UpdateSerializer(UpdateFieldsSerializer):
    """What one participant sends in one round."""

    model_file = _file("model_file")


class MetricSerializer(serializers.ModelSerializer):
    """A metric; one that came as NaN or infinite is shown as null, with `finite` false."""

    value_binary = serializers.SerializerMethodField()
    finite = serializers.SerializerMethodField()

    class Meta:
        model = Metric
        fields = (
            "id",
            "identifier",
            "key",
            "value_float",
            "value_binary",
            "step",
            "model",
            "reporter",
            "phase",
            "finite",
        )
        read_only_fields = fields

    def get_value_binary(self, metric: Metric) -> str | None:
        if metric.value_binary is None:
            return None
        return base64.b64encode(metric.value_binary).decode()

    def get_finite(self, metric: Metric) -> bool:
        return metric.value_float is not None or metric.value_binary is not None
