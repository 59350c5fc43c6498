"""What a training is doing, in a sentence and in facts."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from folkmoot.protocol.states import TrainingState
from folkmoot.server.accounts.models import User
from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.examples import example, example_of
from folkmoot.server.api.serializers.participants import DOINGS
from folkmoot.server.trainings.explaining import Facts, code_of, sentence_of
from folkmoot.server.trainings.facts import facts_of
from folkmoot.server.trainings.models import Training
from folkmoot.server.trainings.options import warnings


@example(id=examples.HOSPITALS[0], username="lab-b", state="training", percent=40.0, last_seen=examples.LATER)
class AwaitedSerializer(serializers.Serializer):
    """A participant whose answer may still come; `state` is null of who is to come online before it is asked."""

    id = serializers.UUIDField()
    username = serializers.CharField()
    state = serializers.ChoiceField(DOINGS, source="doing", allow_null=True)
    percent = serializers.FloatField(allow_null=True)
    last_seen = serializers.DateTimeField(allow_null=True)


@example(
    state="O",
    code="collecting",
    sentence="Round 3 of 10: waiting for 1 of 5 updates, lab-b (training, 40 %); closes at 08:41 UTC with at least 3.",
    reason_code="",
    round=3,
    rounds=10,
    wanted=5,
    arrived=4,
    waiting_for=[example_of(AwaitedSerializer)],
    closes_at=examples.LATER,
    warnings=[],
)
class ExplanationSerializer(serializers.Serializer):
    """What the training is doing. `round` counts from 1 here, as in the sentence, whose times are in UTC.

    Of the step at hand: how many answers end it, how many came, who may still answer, and its deadline. Where a round
    waits for participants: how many must be online, how many of these are, and who is not.
    """

    state = serializers.ChoiceField([state.value for state in TrainingState])
    code = serializers.CharField(help_text="what it is doing, in a word")
    sentence = serializers.CharField()
    reason_code = serializers.CharField(help_text="of a training that ended early")
    round = serializers.IntegerField(allow_null=True)
    rounds = serializers.IntegerField()
    wanted = serializers.IntegerField()
    arrived = serializers.IntegerField()
    waiting_for = AwaitedSerializer(many=True)
    closes_at = serializers.DateTimeField(allow_null=True)
    warnings = serializers.ListField(child=serializers.CharField())

    def to_representation(self, training: Training) -> dict[str, Any]:
        return super().to_representation(_shown(training, facts_of(training, shown_to=self.context["request"].user)))


@extend_schema_field(serializers.CharField())
def sentence_about(training: Training, *, shown_to: User) -> str:
    """What the training is doing, and what it waits for."""
    return sentence_of(facts_of(training, shown_to=shown_to))


def _shown(training: Training, facts: Facts) -> dict[str, Any]:
    step = facts.step
    return {
        "state": facts.state,
        "code": code_of(facts),
        "sentence": sentence_of(facts),
        "reason_code": training.reason_code,
        "round": step.number if step else None,
        "rounds": facts.last_round,
        "wanted": step.wanted if step else 0,
        "arrived": step.arrived if step else 0,
        "waiting_for": step.awaited if step else (),
        "closes_at": step.closes_at if step and training.is_under_way else None,
        "warnings": warnings(training.aggregation_method, training.options),
    }
