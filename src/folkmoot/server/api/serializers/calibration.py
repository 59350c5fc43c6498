"""Calibration statistics as a participant sends them, and what follows from those of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from folkmoot.errors import InvalidValue
from folkmoot.server.api.serializers.examples import example, example_of
from folkmoot.server.api.serializers.flat import FlatSerializer, missing, whole
from folkmoot.server.api.serializers.model_files import RoundField
from folkmoot.server.api.serializers.models import MAX_ROUND
from folkmoot.server.api.serializers.strict import NumberField
from folkmoot.server.registry.calibration import MergedCalibration
from folkmoot.uncertainty import (
    ClassStatistics,
    RegressionStatistics,
    ReliabilityBin,
    Statistics,
    expected_calibration_error,
    federated_temperature,
    from_json,
    reliability_bins,
    threshold,
)

COVERAGE = 0.9
TASKS = (ClassStatistics.TASK, RegressionStatistics.TASK)


@extend_schema_field(
    {
        "type": "object",
        "description": "As `folkmoot.uncertainty.to_json` writes it: the task, and by the names of its counts and sums "
        "lists of a fixed length each.",
        "properties": {"task": {"type": "string", "enum": list(TASKS)}},
        "additionalProperties": {"type": "array", "items": {"type": "number"}},
        "required": ["task"],
    }
)
class StatisticsField(serializers.JSONField):
    """Counts and sums of one participant; raises InvalidValue, naming what rows cannot have given."""

    def to_internal_value(self, data: Any) -> Statistics:
        return from_json(data)


# A list of all its counts would tell nobody more.
@example(round=3, statistics={"task": RegressionStatistics.TASK, "residual_counts": [0, 4, 17]})
class CalibrationSubmissionSerializer(FlatSerializer):
    """What a participant has counted on its own data, of the checkpoint of a round."""

    round = serializers.IntegerField(**whole("round", 0, MAX_ROUND))
    statistics = StatisticsField(error_messages=missing("statistics"))


@extend_schema_field({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})
class CoverageField(NumberField):
    """A part of all rows."""

    default_error_messages: ClassVar[dict[str, str]] = dict.fromkeys(
        ("invalid", "null"), "coverage must be a number between 0 and 1"
    )

    def to_internal_value(self, data: Any) -> float:
        coverage = super().to_internal_value(data)
        if not 0 < coverage < 1:
            self.fail("invalid")
        return coverage


class CalibrationQuery(serializers.Serializer):
    """Which checkpoint, and how often a set is to hold the truth."""

    round = RoundField(
        min_value=0, max_value=MAX_ROUND, required=False, help_text="After so many rounds; by default the latest."
    )
    coverage = CoverageField(default=COVERAGE, help_text="How often a set or an interval is to hold the truth.")


@example(lower=14 / 15, upper=1.0, count=212, confidence=0.98, accuracy=0.91)
class ReliabilityBinSerializer(serializers.Serializer):
    """A bar of the reliability diagram: rows whose confidence lies above `lower`, up to `upper`."""

    lower = serializers.FloatField()
    upper = serializers.FloatField()
    count = serializers.IntegerField()
    confidence = serializers.FloatField()
    accuracy = serializers.FloatField()


@example(coverage=0.9, threshold=0.83, examples=540, reason="")
class ConformalSerializer(serializers.Serializer):
    """The largest score that conforms, which is null for a reason: mostly that it takes more examples."""

    coverage = serializers.FloatField()
    threshold = serializers.FloatField(allow_null=True)
    examples = serializers.IntegerField()
    reason = serializers.CharField()


@example(
    round=3,
    task=ClassStatistics.TASK,
    participants=3,
    examples=540,
    expected_calibration_error=0.081,
    temperature=3.7,
    scaled_calibration_error=0.018,
    reliability_bins=[example_of(ReliabilityBinSerializer)],
    conformal=example_of(ConformalSerializer),
)
class CalibrationSerializer(serializers.Serializer):
    """How well calibrated a checkpoint is; of a regression only `conformal` is known.

    `scaled_calibration_error` is what is left of the error after scaling by `temperature`.
    """

    round = serializers.IntegerField()
    task = serializers.ChoiceField(TASKS, source="statistics.TASK")
    participants = serializers.IntegerField()
    examples = serializers.IntegerField(source="statistics.rows")
    expected_calibration_error = serializers.SerializerMethodField()
    temperature = serializers.SerializerMethodField()
    scaled_calibration_error = serializers.SerializerMethodField()
    reliability_bins = serializers.SerializerMethodField()
    conformal = serializers.SerializerMethodField()

    def get_expected_calibration_error(self, found: MergedCalibration) -> float | None:
        return _of_classes(found, expected_calibration_error)

    def get_temperature(self, found: MergedCalibration) -> float | None:
        return _of_classes(found, federated_temperature)

    def get_scaled_calibration_error(self, found: MergedCalibration) -> float | None:
        return _of_classes(found, lambda each: expected_calibration_error(each, federated_temperature(each)))

    @extend_schema_field(ReliabilityBinSerializer(many=True, allow_null=True))
    def get_reliability_bins(self, found: MergedCalibration) -> list[dict[str, Any]] | None:
        bins: list[ReliabilityBin] | None = _of_classes(found, reliability_bins)
        return None if bins is None else ReliabilityBinSerializer(bins, many=True).data

    @extend_schema_field(ConformalSerializer)
    def get_conformal(self, found: MergedCalibration) -> dict[str, Any]:
        asked = {"coverage": self.context["coverage"], "examples": found.statistics.rows}
        try:
            limit = threshold(found.statistics, self.context["coverage"], participants=found.participants)
        except InvalidValue as error:
            return asked | {"threshold": None, "reason": error.message}
        return asked | {"threshold": limit, "reason": ""}


def _of_classes(found: MergedCalibration, compute: Callable[[ClassStatistics], Any]) -> Any:
    return compute(found.statistics) if isinstance(found.statistics, ClassStatistics) else None
