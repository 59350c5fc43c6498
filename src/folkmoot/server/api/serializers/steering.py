"""What commands to a training may say."""

from __future__ import annotations

from rest_framework import serializers

from folkmoot.server.api.serializers.examples import HOSPITALS, example
from folkmoot.server.api.serializers.models import one_line
from folkmoot.server.api.serializers.options import OptionsSerializer
from folkmoot.server.api.serializers.strict import StrictSerializer

END_OF_ROUND = "end_of_round"


@example(when=END_OF_ROUND)
class StopSerializer(StrictSerializer):
    """When a training is to stop; a training that has not begun, or has failed, stops now."""

    when = serializers.ChoiceField(("now", END_OF_ROUND), default="now")


@example(round=3, target_num_updates=5, name="digits, second try", clients=HOSPITALS)
class CloneSerializer(StrictSerializer):
    """What is to be other than in the training that is cloned; options take the place of all of its options."""

    round = serializers.IntegerField(required=False, min_value=0, max_value=2**31 - 1)
    name = serializers.CharField(required=False, max_length=255, validators=[one_line])
    target_num_updates = serializers.IntegerField(required=False, min_value=1, max_value=10**6)
    options = OptionsSerializer(required=False, style={"base_template": "textarea.html"})
    clients = serializers.ListField(required=False, child=serializers.CharField(max_length=100), max_length=100_000)
