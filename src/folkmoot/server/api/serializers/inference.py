"""What is asked of a model: its id, an input, and how the answer is to come."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from folkmoot.errors import InvalidValue
from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.examples import example
from folkmoot.server.api.serializers.flat import FlatSerializer
from folkmoot.server.api.serializers.models import ModelIdField
from folkmoot.server.storage.upload import IncomingFile

FORMATS = ("json", "binary", "safetensors")
NO_MODEL = "No 'model_id' provided in request."
NO_INPUT = "No uploaded file 'model_input' found."
# As the seed has it, which knows no other.
NO_FORMAT = "Unknown return format '{input}'. Supported are binary and json."


def _absent(sentence: str) -> dict[str, str]:
    return dict.fromkeys(("required", "null", "blank"), sentence)


@extend_schema_field({"anyOf": [{"type": "array", "items": {}, "minItems": 1}, {"type": "string", "minLength": 1}]})
class InputField(serializers.Field):
    """Nested lists of numbers; or base64 of a file."""

    kinds: tuple[type, ...] = (list, str)

    def to_internal_value(self, data: Any) -> Any:
        if data in ("", []):
            self.fail("required")
        if not isinstance(data, self.kinds):
            raise InvalidValue("model_input must be nested lists of numbers, or a file in base64")
        return data


@extend_schema_field({"anyOf": [{"type": "string", "format": "binary"}, {"type": "string", "minLength": 1}]})
class FileInputField(InputField):
    """A file: a tensor as torch saves it, or an image; or the same in base64, as text."""

    kinds = (IncomingFile, str)


@example(model_id=examples.MODEL, model_input=[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
class InferenceSerializer(FlatSerializer):
    """A question in JSON, answered so by default."""

    model_id = ModelIdField(error_messages=_absent(NO_MODEL))
    model_input = InputField(error_messages=_absent(NO_INPUT))
    return_format = serializers.ChoiceField(FORMATS, default="json", error_messages={"invalid_choice": NO_FORMAT})


@example(model_input=examples.FILE)
class InferenceFormSerializer(InferenceSerializer):
    """A question in a form, answered in bytes by default."""

    model_input = FileInputField(error_messages=_absent(NO_INPUT))
    return_format = serializers.ChoiceField(FORMATS, default="binary", error_messages={"invalid_choice": NO_FORMAT})
