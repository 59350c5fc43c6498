"""By what each list can be filtered and ordered."""

from __future__ import annotations

from rest_framework import serializers

from folkmoot.protocol.states import RoundState, TrainingState, UpdateStatus
from folkmoot.server.api.lists import ListQuery, OrderingField
from folkmoot.server.registry.models import Phase


def _text(**options: str) -> serializers.CharField:
    return serializers.CharField(required=False, max_length=255, **options)


class UserQuery(ListQuery):
    ordering = OrderingField("date_joined", "username")
    username = _text()
    actor = serializers.BooleanField(required=False)
    client = serializers.BooleanField(required=False)


class GroupQuery(ListQuery):
    ordering = OrderingField("id", "name")
    name = _text()


class TokenQuery(ListQuery):
    ordering = OrderingField("created_at", "expires_at", "name")
    name = _text()


class ModelQuery(ListQuery):
    ordering = OrderingField("created_at", "name", "round")
    name = _text(help_text="of a local model: that of the model that it was trained from")
    owner = serializers.UUIDField(required=False)
    round = serializers.IntegerField(required=False, min_value=0, max_value=10**6)


class LocalModelQuery(ListQuery):
    """What is asked of models, put to local ones; these come in the order of their arrival."""

    name = _text(source="round__training__model__name")
    owner = serializers.UUIDField(required=False, source="participant")
    round = serializers.IntegerField(required=False, min_value=0, max_value=10**6, source="round__number")


class TrainingQuery(ListQuery):
    ordering = OrderingField("created_at", "last_update", "state")
    state = serializers.ChoiceField([state.value for state in TrainingState], required=False)
    name = _text(source="model__name", help_text="of its model")
    model = serializers.UUIDField(required=False)
    actor = serializers.UUIDField(required=False)
    aggregation_method = _text()


class RoundQuery(ListQuery):
    ordering = OrderingField("number", "opened_at", "closed_at")
    number = serializers.IntegerField(required=False, min_value=0, max_value=10**6)
    state = serializers.ChoiceField([state.value for state in RoundState], required=False)


class UpdateQuery(ListQuery):
    ordering = OrderingField("round", "received_at", "status", "norm", "relative_norm", "cosine", "weight")
    round = serializers.IntegerField(required=False, min_value=0, max_value=10**6, source="round__number")
    participant = serializers.UUIDField(required=False)
    status = serializers.ChoiceField([status.value for status in UpdateStatus], required=False)


class MetricQuery(ListQuery):
    ordering = OrderingField("id", "key", "step")
    key = _text()
    step = serializers.IntegerField(required=False, min_value=0, max_value=10**6)
    reporter = serializers.UUIDField(required=False)
    phase = serializers.ChoiceField(Phase.choices, required=False)


class EventQuery(ListQuery):
    after = serializers.IntegerField(
        required=False, min_value=0, max_value=2**63 - 1, source="pk__gt", help_text="only those with a greater id"
    )
    kind = _text()
