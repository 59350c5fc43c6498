"""Model files: which one is asked for, and what is known of a model's files."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.reverse import reverse

from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.examples import example, example_of
from folkmoot.server.api.serializers.models import MAX_ROUND, LocalModelSerializer, ModelSerializer
from folkmoot.server.inference.summaries import summary_of
from folkmoot.server.registry.contents import Contents, template_bytes
from folkmoot.server.registry.downloads import EXCHANGE, STATE, offered
from folkmoot.server.registry.models import Model, Origin
from folkmoot.server.registry.moments import FIRST, SECOND
from folkmoot.server.trainings.history import Step
from folkmoot.server.trainings.lineage import Ancestor, Lineage
from folkmoot.server.trainings.models import Round, Update
from folkmoot.server.trainings.named_rounds import BEST
from folkmoot.tensors.formats import FORMATS
from folkmoot.tensors.schema import TensorSpec


@extend_schema_field({"oneOf": [{"type": "integer", "minimum": 0}, {"type": "string", "enum": ["latest", "best"]}]})
class RoundField(serializers.IntegerField):
    """A number of rounds, or a name; None stands for the latest."""

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if data == BEST:
            return BEST
        return None if data == "latest" else super().run_validation(data)


@extend_schema_field({"type": "string", "enum": list(FORMATS)})
class FormatField(serializers.CharField):
    """The name of a format; which ones a model can have depends on the model."""


class DownloadSerializer(serializers.Serializer):
    """Which of a model's checkpoints, in which format, and how much of it."""

    round = RoundField(
        min_value=0, max_value=MAX_ROUND, required=False, help_text="After so many rounds; by default the latest."
    )
    part = serializers.ChoiceField(
        (EXCHANGE, STATE, FIRST, SECOND),
        required=False,
        help_text="`exchange`: as safetensors, only the tensors that travel, where these are apart from the others. "
        "`state`: as safetensors or npz, what the training's strategy goes on with, such as SCAFFOLD's control "
        "variates. `first_moment`, `second_moment`: of SWAG, a flat tensor as torch saves it.",
    )

    def get_fields(self) -> dict[str, serializers.Field]:
        # `as` is a word of Python's own.
        text = "By default the format in which the model was uploaded; its weights in another one."
        return super().get_fields() | {"as": FormatField(source="format", required=False, help_text=text)}


@example(name="conv1.weight", dtype="F32", shape=[8, 1, 3, 3], num_parameters=72, num_bytes=288, trainable=True)
class TensorSerializer(serializers.Serializer):
    """One tensor of a model; `trainable` tells a parameter from a buffer, and is null where the format does not."""

    name = serializers.CharField()
    dtype = serializers.CharField()
    shape = serializers.ListField(child=serializers.IntegerField())
    num_parameters = serializers.IntegerField(source="num_elements")
    num_bytes = serializers.IntegerField()
    trainable = serializers.SerializerMethodField()

    def get_trainable(self, spec: TensorSpec) -> bool | None:
        return self.context["contents"].trainable.get(spec.name)


@example(num_tensors=1, num_parameters=72, num_trainable=72, num_bytes=288)
class TotalsSerializer(serializers.Serializer):
    """Of all tensors; those that are one and the same count once as parameters."""

    num_tensors = serializers.IntegerField(source="schema.__len__")
    num_parameters = serializers.IntegerField()
    num_trainable = serializers.IntegerField(allow_null=True)
    num_bytes = serializers.IntegerField(source="schema.num_bytes")


@example(format="torch", sha256=examples.SHA256, num_bytes=2481)
class TemplateSerializer(serializers.Serializer):
    """The file as it was uploaded."""

    format = serializers.CharField()
    sha256 = serializers.CharField(source="template_sha256")
    num_bytes = serializers.SerializerMethodField()

    def get_num_bytes(self, model: Model) -> int:
        return template_bytes(model)


def _template(model: Model) -> dict[str, Any] | None:
    return TemplateSerializer(model).data if model.template_sha256 else None


@example(stats=None, tensors=[example_of(TensorSerializer)], totals=example_of(TotalsSerializer))
class ContentsSerializer(serializers.Serializer):
    """The tensors of a model; `stats`, a summary of layers, is null until it is made, and where none can be made."""

    stats = serializers.SerializerMethodField()
    tensors = serializers.SerializerMethodField()
    totals = serializers.SerializerMethodField()

    def get_stats(self, model: Model | Update) -> dict[str, Any] | None:
        # A local one has the layers of the global one.
        return summary_of(model if isinstance(model, Model) else model.base_model)

    @extend_schema_field(TensorSerializer(many=True))
    def get_tensors(self, model: Model | Update) -> list[dict[str, Any]]:
        contents: Contents = self.context["contents"]
        return TensorSerializer(contents.schema, many=True, context=self.context).data

    @extend_schema_field(TotalsSerializer)
    def get_totals(self, model: Model | Update) -> dict[str, Any]:
        return TotalsSerializer(self.context["contents"]).data


@example(**example_of(ModelSerializer), template=example_of(TemplateSerializer), tied=[])
class MetadataSerializer(ContentsSerializer, ModelSerializer):
    """A model with its tensors and its file."""

    template = serializers.SerializerMethodField()
    tied = serializers.ListField(
        child=serializers.ListField(child=serializers.CharField()), help_text="Names of one and the same tensor."
    )

    class Meta(ModelSerializer.Meta):
        fields = (*ModelSerializer.Meta.fields, "stats", "template", "tensors", "totals", "tied")

    @extend_schema_field(TemplateSerializer(allow_null=True))
    def get_template(self, model: Model) -> dict[str, Any] | None:
        return _template(model)


@example(**example_of(LocalModelSerializer))
class LocalMetadataSerializer(ContentsSerializer, LocalModelSerializer):
    """A local model with its tensors."""

    class Meta(LocalModelSerializer.Meta):
        fields = (*LocalModelSerializer.Meta.fields, "stats", "tensors", "totals")


@example(participant=examples.HOSPITALS[0], num_examples=1200, sha256=examples.SHA256)
class UsedUpdateSerializer(serializers.Serializer):
    """An update that went into a checkpoint; `sha256` is that of its tensors' file."""

    participant = serializers.UUIDField(source="participant_id")
    num_examples = serializers.IntegerField()
    sha256 = serializers.CharField()


@example(
    training=examples.TRAINING,
    round=2,
    aggregation_method="FedAvg",
    num_updates=2,
    num_examples=2000,
    updates=[example_of(UsedUpdateSerializer)],
)
class AggregationSerializer(serializers.Serializer):
    """The round that made a checkpoint.

    How many examples each participant has is its own affair and the actor's: others see the participants' number, and
    of the updates only their own.
    """

    training = serializers.UUIDField(source="training_id")
    round = serializers.IntegerField(source="number")
    aggregation_method = serializers.CharField(source="training.aggregation_method")
    num_updates = serializers.SerializerMethodField()
    num_examples = serializers.SerializerMethodField()
    updates = serializers.SerializerMethodField()

    def get_num_updates(self, made_in: Round) -> int:
        return len(made_in.counted.all())

    def get_num_examples(self, made_in: Round) -> int | None:
        # Of two participants each would know the other's number by the sum.
        return sum(update.num_examples for update in made_in.counted.all()) if self._sees_all(made_in) else None

    @extend_schema_field(UsedUpdateSerializer(many=True))
    def get_updates(self, made_in: Round) -> list[dict[str, Any]]:
        user = self.context["request"].user
        shown = [each for each in made_in.counted.all() if self._sees_all(made_in) or each.participant_id == user.pk]
        return UsedUpdateSerializer(shown, many=True).data

    def _sees_all(self, made_in: Round) -> bool:
        return made_in.training.shows_all_to(self.context["request"].user)


@example(
    round=3,
    created_at=examples.LATER,
    num_bytes=2288,
    sha256=examples.SHA256,
    beneath=[],
    removed_at=None,
    origin="aggregation",
    aggregation=example_of(AggregationSerializer),
    links={"download": f"{examples.HUB}/api/models/{examples.MODEL}/?round=3"},
)
class CheckpointSerializer(serializers.Serializer):
    """The tensors after a round; those that did not travel are in the files `beneath`, the uppermost first.

    `aggregation` is null of what was no round's work, and once the training was removed.
    """

    round = serializers.IntegerField(source="checkpoint.round")
    created_at = serializers.DateTimeField(source="checkpoint.created_at")
    num_bytes = serializers.IntegerField(source="checkpoint.num_bytes")
    sha256 = serializers.CharField(source="checkpoint.sha256")
    beneath = serializers.ListField(child=serializers.CharField(), source="checkpoint.beneath")
    removed_at = serializers.DateTimeField(
        source="checkpoint.removed_at", allow_null=True, help_text="since when its files are not kept"
    )
    origin = serializers.ChoiceField(Origin.values, source="checkpoint.origin")
    aggregation = AggregationSerializer(source="made_in", allow_null=True)
    links = serializers.SerializerMethodField()

    def get_links(self, step: Step) -> dict[str, str]:
        model, checkpoint = self.context["model"], step.checkpoint
        if checkpoint.removed_at is not None:
            return {}
        address = reverse("model-detail", kwargs={"pk": model.pk}, request=self.context["request"])
        ways: dict[str, dict[str, str]] = {"download": {}, **{name: {"as": name} for name in offered(model)}}
        if checkpoint.beneath:
            ways[EXCHANGE] = {"part": EXCHANGE}
        return {name: f"{address}?{urlencode({'round': checkpoint.round, **way})}" for name, way in ways.items()}


@example(
    id=examples.MODEL,
    name="digits",
    owner=examples.ACTOR,
    round=3,
    training=examples.TRAINING,
    parent=examples.OTHER_MODEL,
    parent_round=0,
    created_at=examples.EARLIER,
)
class RelativeSerializer(serializers.ModelSerializer):
    """A model in a line of copies."""

    training = serializers.SerializerMethodField()

    class Meta:
        model = Model
        fields = ("id", "name", "owner", "round", "training", "parent", "parent_round", "created_at")
        read_only_fields = fields

    @extend_schema_field({"type": ["string", "null"], "format": "uuid"})
    def get_training(self, model: Model) -> str | None:
        training = getattr(model, "training", None)
        return training and str(training.pk)


@example(
    id=examples.OTHER_MODEL,
    at_round=0,
    model={
        **example_of(RelativeSerializer),
        "id": examples.OTHER_MODEL,
        "training": None,
        "parent": None,
        "parent_round": None,
    },
)
class AncestorSerializer(serializers.Serializer):
    """A model from which others were copied; `model` is null if you may not see it, `id` if it was removed."""

    id = serializers.UUIDField(allow_null=True)
    at_round = serializers.IntegerField()
    model = serializers.SerializerMethodField()

    @extend_schema_field(RelativeSerializer(allow_null=True))
    def get_model(self, ancestor: Ancestor) -> dict[str, Any] | None:
        return ancestor.model and RelativeSerializer(ancestor.model).data


@example(
    model=example_of(RelativeSerializer),
    template=example_of(TemplateSerializer),
    ancestors=[example_of(AncestorSerializer)],
    descendants=[],
)
class LineageSerializer(serializers.Serializer):
    """A model, those that it descends from, the nearest first, and those that descend from it."""

    model = RelativeSerializer()
    template = serializers.SerializerMethodField()
    ancestors = AncestorSerializer(many=True)
    descendants = RelativeSerializer(many=True)

    @extend_schema_field(TemplateSerializer(allow_null=True))
    def get_template(self, lineage: Lineage) -> dict[str, Any] | None:
        return _template(lineage.model)
