"""What a training is told to do."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from folkmoot.server.api.permissions import MaySteer
from folkmoot.server.api.schema import ID, invalid, says
from folkmoot.server.api.serializers.steering import END_OF_ROUND, CloneSerializer, StopSerializer
from folkmoot.server.api.views.base import ResourceViewSet
from folkmoot.server.faults import fault_point
from folkmoot.server.trainings import lifecycle
from folkmoot.server.trainings.cloning import clone_training
from folkmoot.server.trainings.models import Training

CREATED = OpenApiResponse(
    {
        "type": "object",
        "properties": {
            "detail": {"type": "string"},
            "training_id": {"type": "string", "format": "uuid"},
            "warnings": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["detail", "training_id"],
    },
    examples=[OpenApiExample("created", {"detail": "Training created successfully!", "training_id": ID})],
)
MAY_STEER = (IsAuthenticated, MaySteer)
COMMAND: dict[str, Any] = {
    "detail": True,
    "methods": ["post"],
    "serializer_class": Serializer,
    "permission_classes": MAY_STEER,
}
"""An action that needs no body."""


class SteeringViewSet(ResourceViewSet):
    """Trainings, as far as they are steered."""

    @extend_schema(
        request=None,
        responses={
            202: says("Training started!"),
            400: invalid(
                "At least one participant must be registered!",
                wrong_state=f"Training {ID} is not in state INITIAL!",
                too_few_participants="Krum needs 5 participants, and 2 take part!",
            ),
        },
    )
    @action(**COMMAND)
    def start(self, request: Request, pk: str) -> Response:
        """Open the first round and notify its participants."""
        training = self.get_object()
        lifecycle.start(training, by=request.user)
        fault_point("start.after_commit")
        return self.accepted("Training started!", training)

    @extend_schema(
        request=None,
        responses={
            202: says("Training paused!"),
            400: invalid(wrong_state=f"Training {ID} is paused already!"),
        },
    )
    @action(**COMMAND)
    def pause(self, request: Request, pk: str) -> Response:
        """Hold the training where it stands: what is sent is taken, but nothing new is asked for; deadlines wait."""
        training = self.get_object()
        lifecycle.pause(training, by=request.user)
        return self.accepted("Training paused!", training)

    @extend_schema(
        request=None,
        responses={
            202: says("Training resumed!"),
            400: invalid(wrong_state=f"Training {ID} is not paused, but in state O!"),
        },
    )
    @action(**COMMAND)
    def resume(self, request: Request, pk: str) -> Response:
        """Let a paused training go on where it stands, with as much time as was left."""
        training = self.get_object()
        lifecycle.resume(training, by=request.user)
        return self.accepted("Training resumed!", training)

    @extend_schema(
        request=StopSerializer,
        responses={
            202: says("Training stopped!"),
            400: invalid(wrong_state=f"Training {ID} is over, in state C!"),
        },
    )
    @action(detail=True, methods=["post"], serializer_class=StopSerializer, permission_classes=MAY_STEER)
    def stop(self, request: Request, pk: str) -> Response:
        """End the training, now or once its round is closed: the last checkpoint stands."""
        training = self.get_object()
        wanted = self.get_serializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        at_end = wanted.validated_data["when"] == END_OF_ROUND
        lifecycle.stop(training, by=request.user, at_end_of_round=at_end)
        return self.accepted("Training stops at the end of its round!" if at_end else "Training stopped!", training)

    @extend_schema(
        request=None,
        responses={
            202: says("Training retried!"),
            400: invalid(wrong_state=f"Training {ID} is not in state ERROR!"),
        },
    )
    @action(**COMMAND)
    def retry(self, request: Request, pk: str) -> Response:
        """After an error, take the step that failed once more; what came in is kept."""
        training = self.get_object()
        lifecycle.try_again(training, by=request.user)
        return self.accepted("Training retried!", training)

    @extend_schema(request=CloneSerializer, responses={201: CREATED, 400: invalid("round: model has no checkpoint 7")})
    @action(detail=True, methods=["post"], serializer_class=CloneSerializer)
    def clone(self, request: Request, pk: str) -> Response:
        """Make a new training that goes on from an earlier round, or from the last: whoever asks is its actor."""
        training = self.get_object()
        wanted = self.get_serializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        made = clone_training(training, request.user, **wanted.validated_data)
        answer = {"detail": "Training cloned!", "training_id": str(made.pk)}
        return Response(answer, status.HTTP_201_CREATED, headers=self.location_of("detail", made.pk))

    def accepted(self, detail: str, training: Training) -> Response:
        """The answer to a command that was obeyed."""
        location = self.location_of("detail", training.pk)
        return Response({"detail": detail}, status.HTTP_202_ACCEPTED, headers=location)
