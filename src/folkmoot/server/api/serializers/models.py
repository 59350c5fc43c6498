"""Models, updates and metrics."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.conf import settings
from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_field
from rest_framework import serializers
from rest_framework.reverse import reverse

from folkmoot.errors import InvalidValue
from folkmoot.sandbox import architecture_names
from folkmoot.server.api.lists import RowByRow
from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.examples import example
from folkmoot.server.api.serializers.flat import FlatSerializer, missing, whole
from folkmoot.server.api.serializers.form_lists import FormListField
from folkmoot.server.registry.models import Kind, Metric, Model
from folkmoot.server.registry.moments import FIRST, SECOND
from folkmoot.server.registry.services import MAX_METRIC_BYTES, checked_metrics
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.trainings.creation import as_uuid
from folkmoot.server.trainings.models import Update

MAX_ROUND = 10**6
MAX_DIMENSIONS = 32
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
MAX_MEMBERS = 1000


@example(
    id=examples.MODEL,
    owner=examples.ACTOR,
    round=3,
    name="digits",
    description="a small convolutional network for handwritten digits",
    input_shape=[None, 1, 28, 28],
    preprocessing=None,
    has_preprocessing=False,
)
class ModelSerializer(serializers.ModelSerializer):
    """A model without its weights; `preprocessing` is where that file can be had."""

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

    @extend_schema_field({"type": ["string", "null"], "format": "uri"})
    def get_preprocessing(self, model: Model) -> str | None:
        return self._address(model, "model-preprocessing") if model.preprocessing_sha256 else None

    def get_has_preprocessing(self, model: Model) -> bool:
        return bool(model.preprocessing_sha256)

    def _address(self, model: Model, name: str) -> str:
        return reverse(name, kwargs={"pk": model.pk}, request=self.context.get("request"))


@example(
    id="6e1b9d84-3c5f-4a27-b0e8-d7f2a9c4e613",
    round=0,
    name="mean of two",
    models=[examples.MODEL, examples.OTHER_MODEL],
)
class EnsembleSerializer(ModelSerializer):
    """A model that is the mean of others."""

    models = serializers.SerializerMethodField()

    class Meta(ModelSerializer.Meta):
        fields = (*ModelSerializer.Meta.fields, "models")

    @extend_schema_field({"type": "array", "items": {"type": "string", "format": "uuid"}})
    def get_models(self, model: Model) -> list[str]:
        return [str(each.member_id) for each in model.memberships.all()]


@example(
    id=examples.OTHER_MODEL,
    swag_first_moment=f"{examples.HUB}/api/models/{examples.OTHER_MODEL}/?part=first_moment",
    swag_second_moment=f"{examples.HUB}/api/models/{examples.OTHER_MODEL}/?part=second_moment",
)
class SwagModelSerializer(ModelSerializer):
    """A model with the moments of its parameters, which are null until a round has collected them."""

    swag_first_moment = serializers.SerializerMethodField()
    swag_second_moment = serializers.SerializerMethodField()

    class Meta(ModelSerializer.Meta):
        fields = (*ModelSerializer.Meta.fields, "swag_first_moment", "swag_second_moment")

    @extend_schema_field({"type": ["string", "null"], "format": "uri"})
    def get_swag_first_moment(self, model: Model) -> str | None:
        return self._moment(model, FIRST)

    @extend_schema_field({"type": ["string", "null"], "format": "uri"})
    def get_swag_second_moment(self, model: Model) -> str | None:
        return self._moment(model, SECOND)

    def _moment(self, model: Any, part: str) -> str | None:
        return f"{self._address(model, 'model-detail')}?part={part}" if model.has_moments else None


@example(id=examples.LOCAL_MODEL, owner=examples.HOSPITALS[0], round=3, base_model=examples.MODEL, sample_size=1200)
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


_KINDS = {Kind.GLOBAL: ModelSerializer, Kind.SWAG: SwagModelSerializer, Kind.MEAN: EnsembleSerializer}
ANY_MODEL = PolymorphicProxySerializer(
    "AnyModel", [*_KINDS.values(), LocalModelSerializer], resource_type_field_name=None, many=True
)


def shown(models: Iterable[Model], updates: Iterable[Update], context: dict[str, Any]) -> list[dict[str, Any]]:
    """Models of all kinds in one list, the local ones at its end."""
    kinds = {kind: serializer(context=context) for kind, serializer in _KINDS.items()}
    globally = [kinds[Kind(model.type)].to_representation(model) for model in models]
    return [*globally, *LocalModelSerializer(updates, many=True, context=context).data]


@extend_schema_field({"type": ["integer", "null"], "minimum": 1})
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


@example(name="digits", description="a small convolutional network for handwritten digits")
class DescriptionSerializer(FlatSerializer):
    """What is said about a model of any kind."""

    name = serializers.CharField(max_length=255, error_messages=missing("name"), validators=[one_line])
    description = serializers.CharField(max_length=10_000, error_messages=missing("description"))
    input_shape = FormListField(
        child=DimensionField(allow_null=True), required=False, max_length=MAX_DIMENSIONS, is_divided=True
    )
    round = serializers.IntegerField(default=0, **whole("round", 0, MAX_ROUND))
    type = serializers.ChoiceField(Kind.choices, default=Kind.GLOBAL)


class ModelFieldsSerializer(DescriptionSerializer):
    """What is said about a model whose file comes by itself.

    `architecture` is what a file of mere weights is put into for predictions: a name that this server knows.
    """

    architecture = serializers.CharField(required=False, allow_blank=True, max_length=100)

    def validate_architecture(self, name: str) -> str:
        if name and name not in architecture_names():
            known = ", ".join(architecture_names())
            raise InvalidValue(f"architecture {name!r} is not known here; known are: {known}")
        return name

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["type"] == Kind.MEAN:
            raise InvalidValue("a MEAN model has no file; post it as JSON with `models`, the ids of its members")
        if "model_preprocessing_file" in self.initial_data and "model_preprocessing_file" not in self.fields:
            raise InvalidValue("send model_preprocessing_file to models/<id>/preprocessing/ once the model is there")
        return attrs


@example(input_shape=[None, 1, 28, 28], model_file=examples.FILE)
class ModelUploadSerializer(ModelFieldsSerializer):
    """A model file with its name."""

    model_file = _file("model_file")
    model_preprocessing_file = serializers.FileField(required=False, allow_empty_file=True, source="preprocessing")


@example(model_preprocessing_file=examples.FILE)
class PreprocessingSerializer(FlatSerializer):
    """A torch module or TorchScript that inputs go through first."""

    model_preprocessing_file = _file("model_preprocessing_file")


class ModelIdField(serializers.CharField):
    """The id of a model; whether it is there is asked later, in the same words."""

    def to_internal_value(self, data: Any) -> UUID:
        text = super().to_internal_value(data)
        known = as_uuid(text)
        if known is None:
            raise InvalidValue(f"Model {text[:100]} not found.", code="not_found")
        return known


@example(type="MEAN", name="mean of two", models=[examples.MODEL, examples.OTHER_MODEL])
class EnsembleCreationSerializer(DescriptionSerializer):
    """The ids of models of which the new one is the mean."""

    models = serializers.ListField(
        child=ModelIdField(), min_length=1, max_length=MAX_MEMBERS, source="members", error_messages=missing("models")
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        del attrs["type"]
        return attrs


class MetricValueField(serializers.JSONField):
    """A number, some text, or a file; what is no number is kept as its bytes."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, IncomingFile):
            return super().to_internal_value(data)
        if (num_bytes := data.size or 0) > MAX_METRIC_BYTES:
            raise InvalidValue(f"the file of a metric has {num_bytes:,} bytes; at most {MAX_METRIC_BYTES:,} are taken")
        return b"".join(data.blocks())


@example(metric_names=["loss", "accuracy"], metric_values=[0.31, 0.91])
class MetricsSerializer(FlatSerializer):
    """Names and values, paired by their places."""

    metric_names = FormListField(child=serializers.CharField(allow_blank=False), default=list)
    metric_values = FormListField(child=MetricValueField(), default=list)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        names, values = attrs.pop("metric_names"), attrs.pop("metric_values")
        if not names or not values:
            raise InvalidValue("Metric names or values are missing")
        return attrs | {"metrics": checked_metrics(names, values)}


@example(metric_names=["loss", "accuracy"], metric_values=[0.31, 0.91], round=3)
class MetricsReportSerializer(MetricsSerializer):
    """Metrics, and of which checkpoint they are."""

    round = serializers.IntegerField(
        required=False,
        help_text="They are of the model after so many rounds, as the test was asked for; by default as it is now.",
        **whole("round", 0, MAX_ROUND),
    )


@example(round=3, sample_size=1200)
class UpdateFieldsSerializer(MetricsSerializer):
    """What is said about an update. `owner` is accepted and ignored: the sender owns it."""

    round = serializers.IntegerField(**whole("round", 0, MAX_ROUND))
    sample_size = serializers.IntegerField(**whole("sample_size", 1, settings.MAX_NUM_EXAMPLES))
    owner = serializers.CharField(required=False, allow_blank=True, write_only=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs.pop("owner", None)
        attrs["metrics"] = checked_metrics(attrs.pop("metric_names"), attrs.pop("metric_values"))
        return attrs


@example(model_file=examples.FILE)
class UpdateSerializer(UpdateFieldsSerializer):
    """What one participant sends in one round."""

    model_file = _file("model_file")


@example(round=4, sample_size=1200, first_moment_file=examples.FILE, second_moment_file=examples.FILE)
class SwagSerializer(FlatSerializer):
    """Both moments of one participant; a `sample_size` of 0 and no files say that it has none."""

    round = serializers.IntegerField(**whole("round", 0, MAX_ROUND))
    sample_size = serializers.IntegerField(**whole("sample_size", 0, settings.MAX_NUM_EXAMPLES))
    first_moment_file = serializers.FileField(required=False, allow_empty_file=True)
    second_moment_file = serializers.FileField(required=False, allow_empty_file=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        names = ("first_moment_file", "second_moment_file")
        first, second = (attrs.pop(name, None) for name in names)
        if attrs["sample_size"] == 0 and (first or second):
            raise InvalidValue("sample_size is 0: moments of no examples are sent without files")
        for name, file in zip(names, (first, second), strict=True):
            if attrs["sample_size"] and not file:
                raise InvalidValue(f"No uploaded file '{name}' found.")
        return attrs | {"files": (first, second) if attrs["sample_size"] else None}


@example(
    id=17,
    identifier=examples.HOSPITALS[0],
    key="accuracy",
    value_float=0.91,
    value_binary=None,
    step=3,
    model=examples.MODEL,
    reporter=examples.HOSPITALS[0],
    phase="test",
    finite=True,
)
class MetricSerializer(serializers.ModelSerializer):
    """A metric; one that came as NaN or infinite is shown as null, with `finite` false."""

    value_binary = serializers.CharField(allow_null=True, help_text="base64")
    finite = serializers.BooleanField()

    class Meta:
        model = Metric
        list_serializer_class = RowByRow
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

    def to_representation(self, metric: Metric) -> dict[str, Any]:
        # By hand: a list may have a hundred thousand, and asking each field takes ten times as long.
        binary = metric.value_binary
        return {
            "id": metric.pk,
            "identifier": metric.identifier,
            "key": metric.key,
            "value_float": metric.value_float,
            "value_binary": None if binary is None else base64.b64encode(binary).decode(),
            "step": metric.step,
            "model": str(metric.model_id),
            "reporter": str(metric.reporter_id),
            "phase": metric.phase,
            "finite": metric.value_float is not None or binary is not None,
        }
