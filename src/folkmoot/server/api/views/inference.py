"""Predictions of a model."""

from __future__ import annotations

from django.http import QueryDict
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from folkmoot.errors import InvalidValue, NotInstalled
from folkmoot.server.api.parsers import JSONParser, MultiPartParser
from folkmoot.server.api.permissions import MaySeeModel
from folkmoot.server.api.schema import ID, invalid, refuses
from folkmoot.server.api.serializers.inference import (
    NO_FORMAT,
    NO_INPUT,
    NO_MODEL,
    InferenceFormSerializer,
    InferenceSerializer,
)
from folkmoot.server.api.views.base import BaseViewSet
from folkmoot.server.trainings.local_models import find_model

NOT_INSTALLED = "This version of Folkmoot makes no predictions yet; a later one will, with the extra folkmoot[torch]."


class InferenceViewSet(BaseViewSet):
    """Ask a model, of any kind, what it makes of an input."""

    permission_classes = (IsAuthenticated, MaySeeModel)
    parser_classes = (JSONParser, MultiPartParser)

    @extend_schema(
        operation_id="inference_create",
        request={"application/json": InferenceSerializer, "multipart/form-data": InferenceFormSerializer},
        responses={
            400: invalid(NO_MODEL, NO_INPUT, NO_FORMAT.format(input="xml"), not_found=f"Model {ID} not found."),
            501: refuses(not_installed=NOT_INSTALLED),
        },
    )
    def create(self, request: Request) -> Response:
        """Predict: not yet; what is asked is checked, and then refused."""
        kind = InferenceFormSerializer if isinstance(request.data, QueryDict) else InferenceSerializer
        asked = kind(data=request.data)
        asked.is_valid(raise_exception=True)
        model_id = asked.validated_data["model_id"]
        model = find_model(model_id)
        if model is None:
            raise InvalidValue(f"Model {model_id} not found.", code="not_found")
        self.check_object_permissions(request, model)
        raise NotInstalled(NOT_INSTALLED)
