"""The participants of a training, and what each says that it is doing."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from folkmoot.protocol.states import Doing
from folkmoot.server.api.lists import RowByRow
from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.examples import example
from folkmoot.server.api.serializers.strict import NumberField, StrictSerializer, TextField
from folkmoot.server.trainings.doings import doings_of

MAX_REASON = 2000
DOINGS = [each.value for each in Doing]
REPORTED = [each.value for each in Doing if each.is_under_way or each.gives_up]


@example(round=3, state="training", percent=40)
class ProgressSerializer(StrictSerializer):
    """What a participant is doing about a round's update; `reason` says why it failed, or why it declines."""

    round = serializers.IntegerField(min_value=0, max_value=10**9)
    state = serializers.ChoiceField(REPORTED, source="doing")
    percent = NumberField(min_value=0, max_value=100, required=False, allow_null=True, help_text="of the training")
    reason = TextField(max_length=MAX_REASON, required=False, allow_blank=True)

    def validate_state(self, state: str) -> Doing:
        return Doing(state)


class ParticipantListSerializer(RowByRow):
    """Asks for what all participants of a page are doing at once."""

    def to_representation(self, participations: Any) -> list[dict[str, Any]]:
        return super().to_representation(doings_of(self.context["training"], participations))


@example(
    id=examples.HOSPITALS[0],
    username="north-clinic",
    joined_at=examples.EARLIER,
    last_seen=examples.LATER,
    client_version="0.1.0",
    round=3,
    state="training",
    percent=40.0,
    reason="",
    reported_at=examples.LATER,
)
class ParticipantSerializer(serializers.Serializer):
    """A participant; `round` and what follows are of the newest round that has asked it, and null before the first."""

    id = serializers.UUIDField(source="participation.user_id")
    username = serializers.CharField(source="participation.user.username")
    joined_at = serializers.DateTimeField(source="participation.joined_at")
    last_seen = serializers.DateTimeField(
        source="presence.seen_at",
        default=None,
        allow_null=True,
        help_text="when it last asked for work or sent some, to within half a minute",
    )
    client_version = serializers.CharField(
        source="presence.client_version",
        default="",
        help_text="of the Folkmoot client library; empty of another program",
    )
    round = serializers.IntegerField(source="assignment.round.number", default=None, allow_null=True)
    state = serializers.ChoiceField(DOINGS, source="assignment.doing", default=None, allow_null=True)
    percent = serializers.FloatField(source="assignment.percent", default=None, allow_null=True)
    reason = serializers.CharField(source="assignment.reason", default="")
    reported_at = serializers.DateTimeField(source="assignment.reported_at", default=None, allow_null=True)

    class Meta:
        list_serializer_class = ParticipantListSerializer
