"""Predictions of a model."""

from __future__ import annotations

from django.http import HttpResponse, HttpResponseBase, QueryDict
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from folkmoot.errors import InvalidValue
from folkmoot.server.api.parsers import QuestionFormParser, QuestionParser
from folkmoot.server.api.permissions import MaySeeModel
from folkmoot.server.api.raw_bodies import MEDIA_TYPE
from folkmoot.server.api.schema import ID, invalid, refuses
from folkmoot.server.api.serializers.inference import (
    NO_FORMAT,
    NO_INPUT,
    NO_MODEL,
    AnswerSerializer,
    InferenceFormSerializer,
    InferenceSerializer,
)
from folkmoot.server.api.views.base import BaseViewSet
from folkmoot.server.inference.answer_files import as_pickle, as_safetensors
from folkmoot.server.inference.answers import Answer
from folkmoot.server.inference.predicting import predict
from folkmoot.server.trainings.local_models import find_model

NOT_INSTALLED = "this server has no torch, which predictions of this model need: pip install 'folkmoot[torch]'"
FAILED = "the model took longer than 30 seconds and was stopped"
NOT_FITTING = "model_input has the shape [1, 1, 32, 32]; the model takes [null, 1, 28, 28]"
TOO_FEW = "coverage 0.95 takes 19 scores or more; there are 12"
UNUSABLE = (NO_MODEL, NO_INPUT, NO_FORMAT.format(input="xml"), NOT_FITTING, TOO_FEW)
BYTES = {"binary": as_pickle, "safetensors": as_safetensors}


class InferenceViewSet(BaseViewSet):
    """Ask a model, of any kind, what it makes of an input."""

    serializer_class = InferenceFormSerializer
    permission_classes = (IsAuthenticated, MaySeeModel)
    parser_classes = (QuestionParser, QuestionFormParser)

    @extend_schema(
        operation_id="inference_create",
        request={"application/json": InferenceSerializer, "multipart/form-data": InferenceFormSerializer},
        responses={
            (200, "application/json"): AnswerSerializer,
            (200, MEDIA_TYPE): bytes,
            400: invalid(*UNUSABLE, not_found=f"Model {ID} not found."),
            422: refuses(model_failed=FAILED),
            501: refuses(not_installed=NOT_INSTALLED),
        },
    )
    def create(self, request: Request) -> HttpResponseBase:
        """Predict; how sure the model is comes along where its training has an uncertainty method."""
        kind = InferenceFormSerializer if isinstance(request.data, QueryDict) else InferenceSerializer
        asked = kind(data=request.data)
        asked.is_valid(raise_exception=True)
        fields = asked.validated_data
        model = find_model(fields["model_id"])
        if model is None:
            raise InvalidValue(f"Model {fields['model_id']} not found.", code="not_found")
        self.check_object_permissions(request, model)
        wanted = {name: fields[name] for name in ("round", "coverage") if name in fields}
        answer = predict(model, fields["model_input"], asked_by=request.user, **wanted)
        return _response(answer, fields["return_format"])


def _response(answer: Answer, return_format: str) -> HttpResponseBase:
    if return_format == "json":
        # A plain dictionary: a page takes what its serializer is of for the thing that its forms would change.
        return Response(dict(AnswerSerializer(answer).data))
    return HttpResponse(BYTES[return_format](answer), content_type=MEDIA_TYPE)
