"""The options of a training that the server knows; others are kept as they came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from folkmoot.errors import NotAvailableYet
from folkmoot.server.api.serializers.strict import NumberField
from folkmoot.server.trainings.options import NOT_YET
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


class OptionsSerializer(serializers.Serializer):
    """Checks what is known, refuses what is not available yet, leaves the rest alone."""

    round_timeout = NumberField(min_value=1, max_value=366 * 86_400, required=False)
    round_retries = serializers.IntegerField(min_value=0, max_value=100, required=False)
    min_updates = serializers.IntegerField(min_value=1, required=False)
    tests = serializers.ChoiceField(("every_round", "final", "never"), required=False)
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
