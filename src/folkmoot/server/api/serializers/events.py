"""What has happened to a training."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from folkmoot.server.api.lists import RowByRow
from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.examples import example
from folkmoot.server.outbox.models import Event
from folkmoot.server.trainings.chronicle import names_in, sentence


class EventListSerializer(RowByRow):
    """Asks for the names of all users at once."""

    def to_representation(self, rows: Any) -> list[Any]:
        is_query = isinstance(rows, QuerySet)
        facts = rows.values_list("payload", flat=True).iterator() if is_query else (row.payload for row in rows)
        self.context["names"] = names_in(facts)
        return super().to_representation(rows)


@example(
    id=42,
    kind="update_received",
    at=examples.EARLIER,
    round=3,
    facts={"round": 3, "participant": examples.HOSPITALS[0]},
    sentence="north-clinic sent an update for round 4.",
)
class EventSerializer(serializers.ModelSerializer):
    """Something that happened; `facts` depend on the kind, users in them are ids. `sentence` counts rounds from 1."""

    at = serializers.DateTimeField(source="created_at", read_only=True)
    round = serializers.SerializerMethodField()
    facts = serializers.DictField(source="payload", read_only=True)
    sentence = serializers.SerializerMethodField()

    class Meta:
        model = Event
        list_serializer_class = EventListSerializer
        fields = ("id", "kind", "at", "round", "facts", "sentence")
        read_only_fields = fields

    def get_round(self, event: Event) -> int | None:
        return event.payload.get("round")

    def get_sentence(self, event: Event) -> str:
        return sentence(event, self.context["names"])
