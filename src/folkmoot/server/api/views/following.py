"""Following a training: what it waits for, and what its participants say that they are doing."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from folkmoot.server.api.permissions import TakesPart
from folkmoot.server.api.schema import refuses
from folkmoot.server.api.serializers.explaining import ExplanationSerializer
from folkmoot.server.api.serializers.participants import ParticipantSerializer, ProgressSerializer
from folkmoot.server.api.views.base import UNFILTERED, ResourceViewSet
from folkmoot.server.notifications.presence import note_seen
from folkmoot.server.trainings import doings
from folkmoot.server.trainings.models import Participation

REPORT: dict[str, Any] = {"serializer_class": ProgressSerializer, "permission_classes": (IsAuthenticated, TakesPart)}


class FollowingViewSet(ResourceViewSet):
    """Trainings, as far as they are watched."""

    @extend_schema(responses=ParticipantSerializer(many=True))
    @action(detail=True, serializer_class=ParticipantSerializer, **UNFILTERED)
    def participants(self, request: Request, pk: str) -> Response:
        """The participants: when each was last seen, and what it is doing; a participant sees itself."""
        training = self.get_object()
        rows = Participation.objects.of_training(training, shown_to=request.user)
        return self.listed(rows, training=training)

    @extend_schema(responses=ExplanationSerializer)
    @action(detail=True, serializer_class=ExplanationSerializer, **UNFILTERED)
    def explain(self, request: Request, pk: str) -> Response:
        """What the training is doing, and what it waits for, in one sentence."""
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(
        request=ProgressSerializer,
        responses={204: None, 409: refuses(round_closed="Training with ID ... is not currently in round 3")},
    )
    @action(detail=True, methods=["post"], **REPORT)
    def progress(self, request: Request, pk: str) -> Response:
        """Say what I am doing about the round's update.

        Who has `failed` or `declined` is not waited for in this round, and keeps its place in the next; while the round
        is open its update still counts. More than one report a second is not written.
        """
        training = self.get_object()
        said = self.get_serializer(data=request.data)
        said.is_valid(raise_exception=True)
        note_seen(request.user, request.headers.get("User-Agent", ""))
        doings.report(training, request.user, **said.validated_data)
        return Response(status=status.HTTP_204_NO_CONTENT)
