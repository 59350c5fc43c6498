"""What is asked of a model: its id, an input, and how the answer is to come; and the answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from folkmoot.errors import InvalidValue
from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.calibration import CoverageField
from folkmoot.server.api.serializers.examples import example
from folkmoot.server.api.serializers.flat import FlatSerializer, whole
from folkmoot.server.api.serializers.model_files import RoundField
from folkmoot.server.api.serializers.models import MAX_ROUND, ModelIdField
from folkmoot.server.inference.answers import Answer, Array
from folkmoot.server.storage.upload import IncomingFile

FORMATS = ("json", "binary", "safetensors")
NO_MODEL = "No 'model_id' provided in request."
NO_INPUT = "No uploaded file 'model_input' found."
# As the seed has it, which knows no other.
NO_FORMAT = "Unknown return format '{input}'. Supported are binary and json."
_OTHER_FORMAT = {"invalid_choice": NO_FORMAT, "null": NO_FORMAT.format(input="null")}


def _absent(sentence: str) -> dict[str, str]:
    return dict.fromkeys(("required", "null", "blank"), sentence)


@extend_schema_field({"anyOf": [{"type": "array", "items": {}, "minItems": 1}, {"type": "string", "minLength": 1}]})
class InputField(serializers.Field):
    """Nested lists of numbers; or a file in base64."""

    kinds: tuple[type, ...] = (list, str)

    def to_internal_value(self, data: Any) -> Any:
        if data in ("", []):
            self.fail("required")
        if not isinstance(data, self.kinds):
            raise InvalidValue("model_input must be nested lists of numbers, or a file in base64")
        return data


@extend_schema_field({"anyOf": [{"type": "string", "format": "binary"}, {"type": "string", "minLength": 1}]})
class FileInputField(InputField):
    """A file: a tensor as torch saves it, safetensors, .npy, PNG, JPEG; or as text nested lists or a file in base64."""

    kinds = (IncomingFile, str)


@example(model_id=examples.MODEL, model_input=[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
class InferenceSerializer(FlatSerializer):
    """A question in JSON, answered so by default."""

    model_id = ModelIdField(error_messages={**_absent(NO_MODEL), "invalid": "model_id must be the id of a model"})
    model_input = InputField(error_messages=_absent(NO_INPUT))
    round = RoundField(
        **whole("round", 0, MAX_ROUND, optional=True),
        required=False,
        help_text="The model after so many rounds; by default as it is.",
    )
    coverage = CoverageField(
        required=False, help_text="How often `prediction_set` is to hold the truth; without it there is none."
    )
    return_format = serializers.ChoiceField(FORMATS, default="json", error_messages=_OTHER_FORMAT)


@example(model_input=examples.FILE)
class InferenceFormSerializer(InferenceSerializer):
    """A question in a form, answered in bytes by default."""

    model_input = FileInputField(
        error_messages=_absent(NO_INPUT), style={"base_template": "input.html", "input_type": "file"}
    )
    # A page, whose form is sent as it stands, shows JSON.
    return_format = serializers.ChoiceField(FORMATS, default="binary", initial="json", error_messages=_OTHER_FORMAT)


@extend_schema_field({"anyOf": [{"type": "array", "items": {}}, {"type": "number"}]})
class NumbersField(serializers.Field):
    """Nested lists."""


@extend_schema_field({"type": "object", "additionalProperties": {"type": "array", "items": {}}})
class MeasuresField(serializers.Field):
    """Nested lists, by the name of what was measured."""


@example(
    inference=[[0.9, 0.1]],
    uncertainty={
        "variance": [[0.01, 0.01]],
        "std": [[0.1, 0.1]],
        "predictive_entropy": [0.3251],
        "expected_entropy": [0.3013],
        "mutual_info": [0.0238],
    },
    prediction_set=[[0]],
)
class AnswerSerializer(serializers.Serializer):
    """Of each row the most likely class; where the training has an uncertainty method, the mean prediction with it."""

    inference = NumbersField()
    uncertainty = MeasuresField()
    prediction_set = NumbersField(
        required=False,
        help_text="With `coverage`: of each row the classes one of which is right so often; of a regression the ends "
        "of an interval in place of each number.",
    )

    def to_representation(self, answer: Answer) -> dict[str, Any]:
        # By hand: there may be millions.
        shown = {
            "inference": answer.inference.tolist(),
            "uncertainty": {name: each.tolist() for name, each in answer.uncertainty.items()},
        }
        return shown if answer.prediction_set is None else shown | {"prediction_set": _sets(answer.prediction_set)}


def _sets(found: Array) -> list[Any]:
    """Classes by their numbers, which are fewer than all of them."""
    return [np.flatnonzero(row).tolist() for row in found] if found.dtype == np.bool_ else list(found.tolist())
