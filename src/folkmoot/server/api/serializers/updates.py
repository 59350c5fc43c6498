"""Updates, as the lists of a training's show them."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from folkmoot.protocol.states import UpdateStatus
from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.examples import example, example_of
from folkmoot.server.trainings.models import Update


@example(norm=0.84, relative_norm=1.12, cosine=0.91, weight=0.6)
class ScoresSerializer(serializers.ModelSerializer):
    """What was measured of an update's delta as its round was aggregated, after the round's model.

    A score is null until then, where nothing measured it and where it does not exist, such as a cosine of zeros.
    """

    class Meta:
        model = Update
        fields = ("norm", "relative_norm", "cosine", "weight")
        read_only_fields = fields
        extra_kwargs = {  # noqa: RUF012
            "norm": {"help_text": "its L2 norm, over all tensors that the strategy merges together"},
            "relative_norm": {"help_text": "that divided by the median of all"},
            "cosine": {"help_text": "of the angle to the mean of all, weighted by examples"},
            "weight": {"help_text": "its share in the aggregate; null where no update has one of its own"},
        }


@example(
    id=examples.LOCAL_MODEL,
    round=3,
    counted_in=3,
    participant=examples.HOSPITALS[0],
    sample_size=1200,
    received_at=examples.EARLIER,
    format="safetensors",
    received_bytes=2288,
    num_bytes=2288,
    status="accepted",
    reason="",
    removed_at=None,
    scores=example_of(ScoresSerializer),
)
class UpdateListSerializer(serializers.ModelSerializer):
    """An update, what has become of it and why.

    `format` and `received_bytes` tell of it as it came, `num_bytes` as it is kept.
    """

    round = serializers.IntegerField(source="round.number")
    counted_in = serializers.IntegerField(
        source="counted_in.number",
        default=None,
        allow_null=True,
        help_text="the round whose aggregate it goes into; in asynchronous training one after its own perhaps",
    )
    sample_size = serializers.IntegerField(source="num_examples")
    status = serializers.ChoiceField([status.value for status in UpdateStatus])
    scores = serializers.SerializerMethodField()

    class Meta:
        model = Update
        fields = (
            "id",
            "round",
            "counted_in",
            "participant",
            "sample_size",
            "received_at",
            "format",
            "received_bytes",
            "num_bytes",
            "status",
            "reason",
            "removed_at",
            "scores",
        )
        read_only_fields = fields

    @extend_schema_field(ScoresSerializer)
    def get_scores(self, update: Update) -> dict[str, float | None]:
        return ScoresSerializer(update).data
