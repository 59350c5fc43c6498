"""Trainings: created, followed, steered."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from folkmoot.server.api.parsers import AnyJSONParser, MultiPartParser
from folkmoot.server.api.permissions import IsActor, MaySeeTraining, MaySteer, MaySteerOrLeave
from folkmoot.server.api.schema import ID, invalid, refuses, says
from folkmoot.server.api.serializers.models import ANY_MODEL
from folkmoot.server.api.serializers.queries import TrainingQuery, UpdateQuery
from folkmoot.server.api.serializers.trainings import (
    ClientsSerializer,
    TrainingCreationSerializer,
    TrainingDetailSerializer,
    TrainingSerializer,
    TrainingWithModelSerializer,
)
from folkmoot.server.api.serializers.updates import UpdateListSerializer
from folkmoot.server.api.views.base import UNFILTERED, ResourceViewSet
from folkmoot.server.api.views.model_lists import models_listed
from folkmoot.server.trainings import lifecycle
from folkmoot.server.trainings.creation import create_training, find_users
from folkmoot.server.trainings.local_models import global_models, local_models, newest_local_models
from folkmoot.server.trainings.models import Training, Update
from folkmoot.server.trainings.options import warnings

NOT_ALL_FOUND = "Not all provided users were found!"
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


@extend_schema_view(
    list=extend_schema(description="The trainings that I am the actor of, the newest first."),
    retrieve=extend_schema(description="The training with its rounds: who was asked, who answered, how good it is."),
)
class TrainingViewSet(ResourceViewSet):
    """Create trainings, follow them, steer them."""

    thing = "Training"
    query_class = TrainingQuery
    serializer_class = TrainingDetailSerializer
    serializer_class_of = {"list": TrainingSerializer, "create": TrainingCreationSerializer}  # noqa: RUF012
    permission_classes = (IsAuthenticated, MaySeeTraining)
    permission_classes_of = {  # noqa: RUF012
        "destroy": (IsAuthenticated, IsActor),
        "remove_clients": (IsAuthenticated, MaySteerOrLeave),
    }
    # The seed takes JSON here whatever the content type says.
    parser_classes = (AnyJSONParser,)
    parser_classes_of = {"create": (MultiPartParser, AnyJSONParser)}  # noqa: RUF012

    def get_queryset(self) -> QuerySet[Training]:
        if self.action == "list":
            return Training.objects.steered_by(self.request.user)
        # All rounds, with who was asked and who answered, are for who looks at the training itself.
        return Training.objects.with_details() if self.action == "retrieve" else Training.objects.all()

    @extend_schema(
        request={
            "application/json": TrainingCreationSerializer,
            "multipart/form-data": TrainingWithModelSerializer,
        },
        responses={
            201: CREATED,
            400: invalid(not_found=NOT_ALL_FOUND),
            403: refuses(permission_denied="You do not have permission to perform this action."),
        },
    )
    def create(self, request: Request) -> Response:
        """Create a training of one's own model, or of one that comes along.

        What may not have been meant comes back as warnings.
        """
        kind = TrainingWithModelSerializer if "model_file" in request.data else TrainingCreationSerializer
        wanted = kind(data=request.data, context=self.get_serializer_context())
        wanted.is_valid(raise_exception=True)
        training = create_training(request.user, **wanted.validated_data)
        answer: dict[str, Any] = {"detail": "Training created successfully!", "training_id": str(training.pk)}
        if found := warnings(training.aggregation_method, training.options):
            answer |= {"warnings": found}
        return Response(answer, status.HTTP_201_CREATED, headers=self.location_of("detail", training.pk))

    @extend_schema(responses={200: says("Training removed!")})
    def destroy(self, request: Request, pk: str) -> Response:
        """Stop the training if it runs, and remove it; its model stays."""
        lifecycle.delete(self.get_object())
        return Response({"detail": "Training removed!"})

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
    @action(detail=True, methods=["post"], serializer_class=Serializer, permission_classes=MAY_STEER)
    def start(self, request: Request, pk: str) -> Response:
        """Open the first round and notify its participants."""
        training = self.get_object()
        lifecycle.start(training)
        return self._accepted("Training started!", training)

    @extend_schema(
        request=ClientsSerializer,
        responses={202: says("Users registered as participants!"), 400: invalid(not_found=NOT_ALL_FOUND)},
    )
    @action(detail=True, methods=["put", "post"], serializer_class=ClientsSerializer, permission_classes=MAY_STEER)
    def clients(self, request: Request, pk: str) -> Response:
        """Let users take part, from the next round on."""
        training = self.get_object()
        lifecycle.add_participants(training, self._users())
        return self._accepted("Users registered as participants!", training)

    @extend_schema(
        request=ClientsSerializer,
        responses={200: says("Users removed from training participants!")},
    )
    @clients.mapping.delete
    def remove_clients(self, request: Request, pk: str) -> Response:
        """End users' part in the training; the round no longer waits for them."""
        lifecycle.remove_participants(self.get_object(), self._users())
        return Response({"detail": "Users removed from training participants!"})

    @extend_schema(responses=ANY_MODEL)
    @action(detail=True, **UNFILTERED)
    def models(self, request: Request, pk: str) -> Response:
        """The global model, and the local ones that are not aggregated yet."""
        training = self.get_object()
        return models_listed(self, global_models(training), local_models(training))

    @extend_schema(responses=ANY_MODEL)
    @action(detail=True, url_path="models/latest", url_name="models-latest", **UNFILTERED)
    def latest_models(self, request: Request, pk: str) -> Response:
        """The global model, and each participant's newest local one."""
        training = self.get_object()
        return models_listed(self, global_models(training), newest_local_models(training))

    @extend_schema(responses=UpdateListSerializer(many=True))
    @action(detail=True, serializer_class=UpdateListSerializer, query_class=UpdateQuery)
    def updates(self, request: Request, pk: str) -> Response:
        """The updates that came in, what has become of each, and its scores; a participant sees its own."""
        return self.listed(Update.objects.of_training(self.get_object(), shown_to=request.user))

    def _accepted(self, detail: str, training: Training) -> Response:
        location = self.location_of("detail", training.pk)
        return Response({"detail": detail}, status.HTTP_202_ACCEPTED, headers=location)

    def _users(self) -> list[Any]:
        wanted = self.get_serializer(data=self.request.data)
        wanted.is_valid(raise_exception=True)
        return find_users(wanted.validated_data["clients"])
