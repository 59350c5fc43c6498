"""Notifications on the wire."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.examples import example, example_of
from folkmoot.server.notifications.models import Notification


@example(
    id=2,
    notification_type="UPDATE_ROUND_START",
    training_uuid=examples.TRAINING,
    body={"round": 0, "global_model_uuid": examples.MODEL},
    created_at=examples.EARLIER,
)
class NotificationSerializer(serializers.ModelSerializer):
    """One message to a participant."""

    id = serializers.IntegerField(source="number")
    notification_type = serializers.CharField(source="type")
    training_uuid = serializers.UUIDField(source="training_id")

    class Meta:
        model = Notification
        fields = ("id", "notification_type", "training_uuid", "body", "created_at")


@example(notifications=[example_of(NotificationSerializer)], last_id=2)
@extend_schema_serializer(many=False)
class NotificationsSerializer(serializers.Serializer):
    """Messages, oldest first, and what to ask `after` next time."""

    notifications = NotificationSerializer(many=True)
    last_id = serializers.IntegerField()


class PollSerializer(serializers.Serializer):
    """The query of a poll."""

    after = serializers.IntegerField(min_value=0, max_value=2**63 - 1, required=False, default=None)
    wait = serializers.IntegerField(min_value=0, default=0, help_text="seconds; more than 60 count as 60")
