"""The rounds of a training, with what the participants' metrics come to."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.examples import example, example_of
from folkmoot.server.api.serializers.participants import DOINGS
from folkmoot.server.registry.models import Phase
from folkmoot.server.trainings.calibration import FEWEST
from folkmoot.server.trainings.models import Round, RoundMetric

OF_A_ROUND = ("number", "state", "attempt", "opened_at", "closes_at", "aggregated_at", "closed_at")
"""What is shown of a round wherever one is shown."""
OF_ALL = ("mean", "count", "left_out")
"""What a participant sees; the rest would tell it of a single other one."""


@example(
    mean=0.88,
    std=0.021,
    min=0.84,
    max=0.91,
    count=3,
    num_examples=3600,
    left_out=0,
    worst=examples.HOSPITALS[0],
)
class RoundMetricSerializer(serializers.ModelSerializer):
    """A metric over all who reported it, each weighted by its examples; what only the actor and staff see is null."""

    min = serializers.FloatField(source="minimum", allow_null=True)
    max = serializers.FloatField(source="maximum", allow_null=True)
    left_out = serializers.IntegerField(
        source="num_left_out", help_text="how many values were not finite, or of no examples"
    )
    worst = serializers.UUIDField(source="worst_id", allow_null=True, help_text="the participant with the worst value")

    class Meta:
        model = RoundMetric
        fields = ("mean", "std", "min", "max", "count", "num_examples", "left_out", "worst")
        read_only_fields = fields

    def to_representation(self, metric: RoundMetric) -> dict[str, Any]:
        shown = super().to_representation(metric)
        if self.context["sees_all"]:
            return shown
        known = OF_ALL if metric.count >= FEWEST else OF_ALL[1:]
        return {name: value if name in known else None for name, value in shown.items()}


@example(
    train={"loss": {**example_of(RoundMetricSerializer), "mean": 0.31, "min": 0.2, "max": 0.4}},
    test={"accuracy": example_of(RoundMetricSerializer)},
)
class RoundMetricsSerializer(serializers.Serializer):
    """By the name of the metric: what came with the updates, and with the test of the model that they made."""

    train = serializers.DictField(child=RoundMetricSerializer())
    test = serializers.DictField(child=RoundMetricSerializer())


@example(id=examples.HOSPITALS[1], username="lab-b", state="late")
class MissingSerializer(serializers.Serializer):
    """One of the cohort with no update in the round, and what it was doing last; `late` once the round goes on."""

    id = serializers.UUIDField(source="user_id")
    username = serializers.CharField(source="user.username")
    state = serializers.ChoiceField(DOINGS, source="doing")


@example(
    number=2,
    state="CLOSED",
    attempt=1,
    opened_at=examples.EARLIER,
    closes_at=examples.LATER,
    aggregated_at=examples.LATER,
    closed_at=examples.LATER,
    cohort_size=2,
    received=2,
    missing=[],
    metrics=example_of(RoundMetricsSerializer),
)
class RoundSummarySerializer(serializers.ModelSerializer):
    """A round and, once it is closed, what its metrics come to; `missing` are those of the cohort with no update."""

    cohort_size = serializers.SerializerMethodField()
    received = serializers.SerializerMethodField()
    missing = serializers.SerializerMethodField()
    metrics = serializers.SerializerMethodField()

    class Meta:
        model = Round
        fields = (*OF_A_ROUND, "cohort_size", "received", "missing", "metrics")
        read_only_fields = fields

    def get_cohort_size(self, current: Round) -> int:
        return len(current.assignments.all())

    def get_received(self, current: Round) -> int:
        return len(current.arrived)

    @extend_schema_field(MissingSerializer(many=True))
    def get_missing(self, current: Round) -> list[dict[str, Any]]:
        arrived = set(current.arrived)
        missing = [each for each in current.assignments.all() if each.user_id not in arrived]
        if not self.context["sees_all"]:
            missing = [each for each in missing if each.user_id == self.context["request"].user.pk]
        return MissingSerializer(missing, many=True).data

    @extend_schema_field(RoundMetricsSerializer)
    def get_metrics(self, current: Round) -> dict[str, dict[str, Any]]:
        shown = RoundMetricSerializer(context=self.context)
        of_round = list(current.metrics.all())
        return {
            phase.value: {each.name: shown.to_representation(each) for each in of_round if each.phase == phase}
            for phase in (Phase.TRAIN, Phase.TEST)
        }
