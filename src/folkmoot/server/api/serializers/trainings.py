"""Trainings, as they are created and as they are shown."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.http import QueryDict
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from folkmoot.aggregation import strategies
from folkmoot.protocol.states import RoundState
from folkmoot.server.accounts.models import User
from folkmoot.server.api.lists import RowByRow
from folkmoot.server.api.parsers import json_field
from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.examples import example, example_of
from folkmoot.server.api.serializers.explaining import sentence_about
from folkmoot.server.api.serializers.form_lists import FormListField
from folkmoot.server.api.serializers.models import one_line
from folkmoot.server.api.serializers.options import OptionsSerializer
from folkmoot.server.api.serializers.rounds import OF_A_ROUND
from folkmoot.server.api.serializers.strict import StrictSerializer
from folkmoot.server.registry.models import Metric, Phase
from folkmoot.server.trainings.buffering import waiting
from folkmoot.server.trainings.models import Participation, Round, Training
from folkmoot.server.trainings.strategies import buffer_of, check_plan

MISSING = {"required": "Missing data for required field."}
UNCERTAINTY_METHODS = ("NONE", "ENSEMBLE", "MC_DROPOUT", "SWAG")


@example(target_num_updates=10, aggregation_method="FedAvg", clients=examples.HOSPITALS)
class PlanSerializer(StrictSerializer):
    """What a training is to be, of whatever model; in a form, objects and lists are JSON, and lists may be repeated."""

    target_num_updates = serializers.IntegerField(initial=10, min_value=1, max_value=10**6, error_messages=MISSING)
    aggregation_method = serializers.CharField(max_length=50, error_messages=MISSING)
    metric_names = FormListField(child=serializers.CharField(max_length=64), max_length=1000, default=list)
    uncertainty_method = serializers.ChoiceField(UNCERTAINTY_METHODS, default="NONE")
    options = OptionsSerializer(default=dict, style={"base_template": "textarea.html"})
    clients = FormListField(
        child=serializers.CharField(max_length=100), max_length=100_000, default=list, is_divided=True
    )

    def validate_aggregation_method(self, name: str) -> str:
        if name not in strategies():
            valid = ", ".join(sorted(strategies()))
            raise serializers.ValidationError(f"{name!r} is no aggregation method; valid ones: {valid}.")
        return name

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        check_plan(attrs["aggregation_method"], attrs["options"])
        return attrs

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        return super().to_internal_value(self._of_form(data) if isinstance(data, QueryDict) else data)

    def _of_form(self, form: QueryDict) -> dict[str, Any]:
        # A browser also sends what was left empty, and the token of its page.
        filled = [name for name in form if form.getlist(name) != [""] and name != "csrfmiddlewaretoken"]
        return {name: self._field_of_form(name, form.getlist(name)) for name in filled}

    def _field_of_form(self, name: str, values: list[Any]) -> Any:
        field = self.fields.get(name)
        if name == "options":
            return json_field(name, str(values[-1]))
        if not isinstance(field, FormListField):
            return values[-1]
        is_json = len(values) == 1 and str(values[0]).startswith("[")
        return json_field(name, str(values[0])) if is_json else field.items(values)


@example(model_id=examples.MODEL)
class TrainingCreationSerializer(PlanSerializer):
    """A training of a model that is there."""

    model_id = serializers.CharField(max_length=100, error_messages=MISSING)


@example(name="digits", description="a small convolutional network for handwritten digits", model_file=examples.FILE)
class TrainingWithModelSerializer(PlanSerializer):
    """A training of a model that comes with it."""

    name = serializers.CharField(max_length=255, error_messages=MISSING, validators=[one_line])
    description = serializers.CharField(max_length=10_000, error_messages=MISSING)
    model_file = serializers.FileField(allow_empty_file=True, error_messages=MISSING)


@example(clients=examples.HOSPITALS)
class ClientsSerializer(serializers.Serializer):
    """Ids of users."""

    clients = serializers.ListField(
        child=serializers.CharField(max_length=100), max_length=100_000, error_messages=MISSING
    )


class TrainingListSerializer(RowByRow):
    """Asks for the participants of all trainings at once, and for their ids alone."""

    def to_representation(self, trainings: Any) -> list[dict[str, Any]]:
        self.context["participants"] = Participation.objects.filter(training__in=trainings).users_by_training()
        busy = [state for state in RoundState if state.is_aggregating]
        aggregating = Round.objects.filter(training__in=trainings, state__in=busy)
        self.context["locked"] = set(aggregating.values_list("training", flat=True))
        return super().to_representation(trainings)


@example(
    id=examples.TRAINING,
    state="O",
    target_num_updates=10,
    last_update=examples.LATER,
    uncertainty_method="NONE",
    aggregation_method="FedAvg",
    options={"round_timeout": 600},
    locked=False,
    model=examples.MODEL,
    actor=examples.ACTOR,
    participants=examples.HOSPITALS,
    metric_names=["accuracy"],
    reason="",
    reason_code="",
    paused_at=None,
    stops_after_round=False,
)
class TrainingSerializer(serializers.ModelSerializer):
    """A training as lists show it."""

    locked = serializers.SerializerMethodField()
    participants = serializers.SerializerMethodField()

    class Meta:
        model = Training
        list_serializer_class = TrainingListSerializer
        fields = (
            "id",
            "state",
            "target_num_updates",
            "last_update",
            "uncertainty_method",
            "aggregation_method",
            "options",
            "locked",
            "model",
            "actor",
            "participants",
            "metric_names",
            "reason",
            "reason_code",
            "paused_at",
            "stops_after_round",
        )
        read_only_fields = fields

    def get_locked(self, training: Training) -> bool:
        return training.pk in self.context["locked"]

    def get_participants(self, training: Training) -> list[str]:
        return [str(user) for user in self.context["participants"].get(training.pk, ())]


@example(
    number=0,
    state="OPEN",
    attempt=1,
    opened_at=examples.EARLIER,
    closes_at=examples.LATER,
    aggregated_at=None,
    closed_at=None,
    cohort=examples.HOSPITALS,
    goal=None,
    arrived=examples.HOSPITALS[:1],
    metrics={"train": {examples.HOSPITALS[0]: {"loss": 0.31}}, "test": {}},
)
class RoundSerializer(serializers.ModelSerializer):
    """A round: who was asked, who answered, and the metrics of its updates and of its test, by reporter.

    A participant sees its own values; what those of all come to is at `rounds/`.
    """

    cohort = serializers.SerializerMethodField()
    arrived = serializers.SerializerMethodField()
    metrics = serializers.SerializerMethodField()

    class Meta:
        model = Round
        fields = (*OF_A_ROUND, "cohort", "goal", "arrived", "metrics")
        read_only_fields = fields

    def get_cohort(self, current: Round) -> list[str]:
        return _ids(current.cohort.all())

    def get_arrived(self, current: Round) -> list[str]:
        return list(map(str, current.arrived))

    def get_metrics(self, current: Round) -> dict[str, dict[str, dict[str, float | None]]]:
        found = self.context["metrics"]
        return {
            "train": found.get((Phase.TRAIN, current.number), {}),
            "test": found.get((Phase.TEST, current.number + 1), {}),
        }


@example(
    local_models_arrived=1,
    local_models_expected=2,
    rounds=[example_of(RoundSerializer)],
    explanation="Round 1 of 10: waiting for 1 of 2 updates, lab-b (online); closes at 08:41 UTC with at least 1.",
    links={"start": f"{examples.HUB}/api/trainings/{examples.TRAINING}/start/"},
)
class TrainingDetailSerializer(TrainingSerializer):
    """A training with its rounds, how many updates the open one has and awaits, and where to ask for more."""

    local_models_arrived = serializers.SerializerMethodField()
    local_models_expected = serializers.SerializerMethodField()
    rounds = serializers.SerializerMethodField()
    links = serializers.SerializerMethodField()
    explanation = serializers.SerializerMethodField(help_text="what it is doing, and what it waits for")

    class Meta(TrainingSerializer.Meta):
        fields = (
            *TrainingSerializer.Meta.fields,
            "local_models_arrived",
            "local_models_expected",
            "rounds",
            "links",
            "explanation",
        )

    def get_links(self, training: Training) -> dict[str, str]:
        view = self.context["view"]
        names = [each.url_name for each in view.get_extra_actions() if each.detail]
        return {name.replace("-", "_"): view.reverse_action(name, args=[training.pk]) for name in names}

    def get_explanation(self, training: Training) -> str:
        return sentence_about(training, shown_to=self.context["request"].user)

    def get_locked(self, training: Training) -> bool:
        return any(RoundState(each.state).is_aggregating for each in training.rounds.all())

    def get_participants(self, training: Training) -> list[str]:
        return _ids(training.participants.all())

    def get_local_models_arrived(self, training: Training) -> int:
        if buffer_of(training):
            return waiting(training).count()
        return sum(len(each.arrived) for each in _open_rounds(training))

    def get_local_models_expected(self, training: Training) -> int:
        if buffer := buffer_of(training):
            return buffer.size
        return sum(each.goal or len(each.cohort.all()) for each in _open_rounds(training))

    @extend_schema_field(RoundSerializer(many=True))
    def get_rounds(self, training: Training) -> list[dict[str, Any]]:
        context = {"metrics": _metrics_by_step(training, shown_to=self.context["request"].user)}
        return RoundSerializer(training.rounds.all(), many=True, context=context).data


def _open_rounds(training: Training) -> list[Round]:
    return [each for each in training.rounds.all() if each.state == RoundState.OPEN]


def _ids(users: Any) -> list[str]:
    return [str(user.pk) for user in users]


def _metrics_by_step(
    training: Training, *, shown_to: User
) -> dict[tuple[str, int], dict[str, dict[str, float | None]]]:
    found: dict[tuple[str, int], dict[str, dict[str, float | None]]] = defaultdict(lambda: defaultdict(dict))
    numbers = Metric.objects.filter(model=training.model_id, value_binary=None).exclude(phase=Phase.OTHER)
    if not training.shows_all_to(shown_to):
        numbers = numbers.filter(reporter=shown_to)
    for phase, step, reporter, key, value in numbers.values_list("phase", "step", "reporter", "key", "value_float"):
        found[phase, step][str(reporter)][key] = value
    return found
