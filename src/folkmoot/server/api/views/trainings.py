"""Trainings: created, followed, steered."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from folkmoot.server.api.parsers import AnyJSONParser, MultiPartParser
from folkmoot.server.api.permissions import IsActor, MaySeeTraining, MaySteerOrLeave, SeesAll
from folkmoot.server.api.schema import invalid, refuses, says
from folkmoot.server.api.serializers.events import EventSerializer
from folkmoot.server.api.serializers.manifest import ManifestSerializer
from folkmoot.server.api.serializers.models import ANY_MODEL
from folkmoot.server.api.serializers.queries import EventQuery, RoundQuery, TrainingQuery, UpdateQuery
from folkmoot.server.api.serializers.rounds import RoundSummarySerializer
from folkmoot.server.api.serializers.trainings import (
    ClientsSerializer,
    TrainingCreationSerializer,
    TrainingDetailSerializer,
    TrainingSerializer,
    TrainingWithModelSerializer,
)
from folkmoot.server.api.serializers.updates import UpdateListSerializer
from folkmoot.server.api.views.base import UNFILTERED
from folkmoot.server.api.views.following import FollowingViewSet
from folkmoot.server.api.views.model_lists import models_listed
from folkmoot.server.api.views.steering import CREATED, MAY_STEER, SteeringViewSet
from folkmoot.server.trainings import lifecycle
from folkmoot.server.trainings.chronicle import events_of
from folkmoot.server.trainings.creation import create_training, find_users
from folkmoot.server.trainings.local_models import global_models, local_models, newest_local_models
from folkmoot.server.trainings.manifest import manifest_of
from folkmoot.server.trainings.models import Training, Update
from folkmoot.server.trainings.options import warnings

NOT_ALL_FOUND = "Not all provided users were found!"


@extend_schema_view(
    list=extend_schema(description="The trainings that I am the actor of, the newest first."),
    retrieve=extend_schema(description="The training with its rounds: who was asked, who answered, how good it is."),
)
class TrainingViewSet(FollowingViewSet, SteeringViewSet):
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
        request=ClientsSerializer,
        responses={202: says("Users registered as participants!"), 400: invalid(not_found=NOT_ALL_FOUND)},
    )
    @action(detail=True, methods=["put", "post"], serializer_class=ClientsSerializer, permission_classes=MAY_STEER)
    def clients(self, request: Request, pk: str) -> Response:
        """Let users take part, from the next round on."""
        training = self.get_object()
        lifecycle.add_participants(training, self._users())
        return self.accepted("Users registered as participants!", training)

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

    @extend_schema(responses=RoundSummarySerializer(many=True))
    @action(detail=True, serializer_class=RoundSummarySerializer, query_class=RoundQuery)
    def rounds(self, request: Request, pk: str) -> Response:
        """The rounds, the oldest first, with what the metrics of each come to; single values are the actor's alone."""
        training = self.get_object()
        return self.listed(training.rounds.with_metrics(), sees_all=training.shows_all_to(request.user))

    @extend_schema(responses=ManifestSerializer)
    @action(detail=True, permission_classes=(IsAuthenticated, SeesAll))
    def manifest(self, request: Request, pk: str) -> Response:
        """All that the training's models were made of, by digests, for `folkmoot training verify`."""
        return Response(manifest_of(self.get_object()))

    @extend_schema(responses=UpdateListSerializer(many=True))
    @action(detail=True, serializer_class=UpdateListSerializer, query_class=UpdateQuery)
    def updates(self, request: Request, pk: str) -> Response:
        """The updates that came in, what has become of each, and its scores; a participant sees its own."""
        return self.listed(Update.objects.of_training(self.get_object(), shown_to=request.user))

    @extend_schema(responses=EventSerializer(many=True))
    @action(detail=True, serializer_class=EventSerializer, query_class=EventQuery)
    def events(self, request: Request, pk: str) -> Response:
        """All that has happened, the oldest first; what speaks against a participant is for it and the actor."""
        return self.listed(events_of(self.get_object(), shown_to=request.user))

    def _users(self) -> list[Any]:
        wanted = self.get_serializer(data=self.request.data)
        wanted.is_valid(raise_exception=True)
        return find_users(wanted.validated_data["clients"])
