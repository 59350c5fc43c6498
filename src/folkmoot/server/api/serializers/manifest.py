"""The shape of a manifest, for the description of the API: it is sent as it was written down."""

from __future__ import annotations

from rest_framework import serializers

from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.examples import example, example_of
from folkmoot.server.trainings.manifest import FORMAT

VERSIONS = {"folkmoot": "0.1.0", "numpy": "2.4.0", "python": "3.11.9"}


@example(
    strategy="FedAvg",
    parameters={"scores": True},
    exchange=[],
    bases=[{"round": 0, "sha256": examples.SHA256, "beneath": []}],
    state="",
    inputs=[
        {
            "update": examples.LOCAL_MODEL,
            "participant": examples.HOSPITALS[0],
            "round": 0,
            "staleness": 0,
            "sha256": examples.SHA256,
            "num_examples": 1200,
            "metrics": {"loss": 0.31},
        }
    ],
)
class RecipeSerializer(serializers.Serializer):
    """What a round's model was made of: the checkpoints, the state, and the updates in the order of their summing.

    The last of `bases` is the round's own; the others are those that late updates were begun with.
    """

    strategy = serializers.CharField()
    parameters = serializers.DictField(help_text="all of them, also those that nobody chose")
    exchange = serializers.ListField(child=serializers.CharField())
    bases = serializers.ListField(child=serializers.DictField())
    state = serializers.CharField(allow_blank=True)
    inputs = serializers.ListField(child=serializers.DictField())


@example(
    inputs=[{"participant": examples.HOSPITALS[0], "sha256": examples.SHA256, "num_examples": 1200}],
    output={"sha256": examples.SHA256, "num_bytes": 4256},
    versions=VERSIONS,
)
class MomentsRecipeSerializer(serializers.Serializer):
    """What the moments of a round's model were merged of, in the order of their summing, and what came of it."""

    inputs = serializers.ListField(child=serializers.DictField())
    output = serializers.DictField()
    versions = serializers.DictField()


@example(
    number=0,
    state="CLOSED",
    attempt=1,
    opened_at=examples.EARLIER,
    aggregated_at=examples.LATER,
    cohort=examples.HOSPITALS,
    recipe=example_of(RecipeSerializer),
    output={"sha256": examples.SHA256, "num_bytes": 2288},
    new_state=None,
    versions=VERSIONS,
    moments=example_of(MomentsRecipeSerializer),
)
class ManifestRoundSerializer(serializers.Serializer):
    """A round; one that has made no model has none of the last five fields, and only with SWAG there are `moments`.

    `new_state` is the file that the strategy goes on with, null where it keeps nothing.
    """

    number = serializers.IntegerField()
    state = serializers.CharField()
    attempt = serializers.IntegerField()
    opened_at = serializers.DateTimeField()
    aggregated_at = serializers.DateTimeField(allow_null=True)
    cohort = serializers.ListField(child=serializers.UUIDField())
    recipe = RecipeSerializer(required=False)
    output = serializers.DictField(required=False)
    new_state = serializers.DictField(required=False, allow_null=True)
    versions = serializers.DictField(required=False)
    moments = MomentsRecipeSerializer(required=False)


@example(
    format=FORMAT,
    training=examples.TRAINING,
    actor=examples.ACTOR,
    state="C",
    target_num_updates=10,
    aggregation_method="FedAvg",
    uncertainty_method="NONE",
    options={"round_timeout": 600},
    seeds={},
    versions=VERSIONS,
    model={
        "id": examples.MODEL,
        "format": "torch",
        "template": examples.SHA256,
        "parent": None,
        "parent_round": None,
        "start": {"round": 0, "sha256": examples.SHA256, "origin": "upload"},
    },
    rounds=[example_of(ManifestRoundSerializer)],
)
class ManifestSerializer(serializers.Serializer):
    """A training, complete also where files were removed."""

    format = serializers.IntegerField()
    training = serializers.UUIDField()
    actor = serializers.UUIDField()
    state = serializers.CharField()
    target_num_updates = serializers.IntegerField()
    aggregation_method = serializers.CharField()
    uncertainty_method = serializers.CharField()
    options = serializers.DictField()
    seeds = serializers.DictField()
    versions = serializers.DictField()
    model = serializers.DictField()
    rounds = ManifestRoundSerializer(many=True)
