"""The options of a training that the server knows; others are kept as they came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from folkmoot.errors import NotAvailableYet
from folkmoot.server.api.serializers.strict import NumberField, StrictSerializer
from folkmoot.server.registry.services import MAX_METRIC_NAME
from folkmoot.server.trainings.cohorts import MAX_SEED
from folkmoot.server.trainings.options import NOT_YET
from folkmoot.server.trainings.retention import ALL, LAST_ROUND, NONE
from folkmoot.tensors.encodings import Encoding

MAX_PATTERNS = 100
MAX_PATTERN_LENGTH = 512
MAX_SAMPLES = 1000
MAX_CHECKPOINTS = 100


class UncertaintyOptionsSerializer(serializers.Serializer):
    """How predictions of the model are sampled; what is not known is kept as it came."""

    N = serializers.IntegerField(min_value=1, max_value=MAX_SAMPLES, required=False)
    softmax = serializers.BooleanField(required=False)
    over = serializers.ChoiceField(("checkpoints", "updates"), required=False)
    k = serializers.IntegerField(min_value=1, max_value=MAX_CHECKPOINTS, required=False)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        return {**(data if isinstance(data, Mapping) else {}), **super().to_internal_value(data)}

    def to_representation(self, instance: Any) -> Any:
        return instance


class SelectionSerializer(StrictSerializer):
    """How many of the participants a round asks, and by which seed they are drawn."""

    fraction = NumberField(min_value=0, max_value=1, required=False)
    count = serializers.IntegerField(min_value=1, required=False)
    extra = serializers.IntegerField(min_value=0, required=False)
    seed = serializers.IntegerField(min_value=0, max_value=MAX_SEED, required=False)

    def validate_fraction(self, fraction: float) -> float:
        if not fraction:
            raise serializers.ValidationError("Ensure this value is greater than 0.")
        return fraction

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("fraction" in attrs) == ("count" in attrs):
            raise serializers.ValidationError("Give either fraction or count.")
        return attrs


class StopWhenSerializer(StrictSerializer):
    """When a training ends early: once the metric of its tests is good enough, or no longer gets better."""

    metric = serializers.CharField(max_length=MAX_METRIC_NAME)
    goal = NumberField(required=False)
    patience = serializers.IntegerField(min_value=1, max_value=10**6, required=False)
    min_delta = NumberField(min_value=0, required=False)
    mode = serializers.ChoiceField(("min", "max"), required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "goal" not in attrs and "patience" not in attrs:
            raise serializers.ValidationError("Give a goal, a patience or both.")
        if "min_delta" in attrs and "patience" not in attrs:
            raise serializers.ValidationError({"min_delta": ["It goes with a patience."]})
        return attrs


@extend_schema_field({"oneOf": [{"type": "integer", "minimum": 1}, {"type": "string"}]})
class KeptField(serializers.IntegerField):
    """A number, or one of some words."""

    def __init__(self, *words: str, **kwargs: Any) -> None:
        self._words = words
        super().__init__(min_value=1, max_value=10**6, required=False, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, bool) or (isinstance(data, str) and data not in self._words):
            raise serializers.ValidationError(f"Give a number, or {' or '.join(self._words)}.")
        return data if isinstance(data, str) else super().to_internal_value(data)

    def run_validators(self, value: Any) -> None:
        if not isinstance(value, str):
            super().run_validators(value)


class RetentionSerializer(StrictSerializer):
    """How many of the last checkpoints are kept, and the updates of how many of the last rounds."""

    checkpoints = KeptField(ALL)
    updates = KeptField(ALL, NONE, LAST_ROUND)


class OptionsSerializer(serializers.Serializer):
    """Checks what is known, refuses what is not available yet, leaves the rest alone."""

    round_timeout = NumberField(min_value=1, max_value=366 * 86_400, required=False)
    round_retries = serializers.IntegerField(min_value=0, max_value=100, required=False)
    min_available = serializers.IntegerField(min_value=1, max_value=10**6, required=False)
    min_updates = serializers.IntegerField(min_value=1, required=False)
    tests = serializers.ChoiceField(("every_round", "final", "never"), required=False)
    stop_when = StopWhenSerializer(required=False)
    retention = RetentionSerializer(required=False)
    participants_may_steer = serializers.BooleanField(required=False)
    exchange = serializers.ListField(
        child=serializers.CharField(max_length=MAX_PATTERN_LENGTH),
        min_length=1,
        max_length=MAX_PATTERNS,
        required=False,
    )
    encoding = serializers.DictField(required=False)
    local = serializers.DictField(required=False)
    aggregation = serializers.DictField(required=False)
    uncertainty = UncertaintyOptionsSerializer(required=False)
    selection = SelectionSerializer(required=False)
    daisy_chain_period = serializers.IntegerField(min_value=0, required=False)

    def get_initial(self) -> dict[str, Any]:
        return {}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            raise serializers.ValidationError("options must be an object")
        for name in NOT_YET:
            if name in data:
                raise NotAvailableYet(f"options.{name} is not available yet")
        checked = super().to_internal_value(data)
        Encoding.of(checked.get("encoding", {}))
        return {**data, **checked}

    def to_representation(self, instance: Any) -> Any:
        return instance
