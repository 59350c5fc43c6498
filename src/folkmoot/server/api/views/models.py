"""Models: up, down, updates to them, their metrics."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpResponseBase, QueryDict
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
)
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from folkmoot.server.api.downloads import OTHER_ETAG, model_response
from folkmoot.server.api.parsers import BytesParser, FormParser, JSONParser, MultiPartParser
from folkmoot.server.api.permissions import MayReportMetrics, MaySeeModel, OwnsModel, OwnsModelOrSteers
from folkmoot.server.api.raw_bodies import MEDIA_TYPE, receive_body
from folkmoot.server.api.schema import ID, invalid, refuses, says
from folkmoot.server.api.serializers.calibration import (
    CalibrationQuery,
    CalibrationSerializer,
    CalibrationSubmissionSerializer,
)
from folkmoot.server.api.serializers.model_files import (
    CheckpointSerializer,
    DownloadSerializer,
    LineageSerializer,
    LocalMetadataSerializer,
    MetadataSerializer,
)
from folkmoot.server.api.serializers.models import (
    ANY_MODEL,
    EnsembleCreationSerializer,
    MetricSerializer,
    MetricsReportSerializer,
    ModelSerializer,
    ModelUploadSerializer,
    PreprocessingSerializer,
    SwagSerializer,
    UpdateFieldsSerializer,
    UpdateSerializer,
)
from folkmoot.server.api.serializers.queries import LocalModelQuery, MetricQuery, ModelQuery
from folkmoot.server.api.targets import Answer, model_accepted, update_accepted
from folkmoot.server.api.views.base import UNFILTERED, ResourceViewSet
from folkmoot.server.api.views.model_lists import models_listed
from folkmoot.server.faults import fault_point
from folkmoot.server.notifications.presence import note_seen
from folkmoot.server.registry import services
from folkmoot.server.registry.ensembles import create_ensemble
from folkmoot.server.registry.models import Kind, Model
from folkmoot.server.registry.preprocessing import set_preprocessing
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.trainings import lifecycle, local_models, submissions
from folkmoot.server.trainings.calibration import NOT_CALIBRATED, receive_calibration, shown_calibration
from folkmoot.server.trainings.history import History
from folkmoot.server.trainings.lineage import lineage_of, models_of
from folkmoot.server.trainings.models import Update
from folkmoot.server.trainings.removal import remove_model
from folkmoot.server.trainings.swag import submit_moments

DIGEST_HEADER = OpenApiParameter(
    "X-Content-SHA256", OpenApiTypes.STR, OpenApiParameter.HEADER, description="SHA-256 of `model_file`, in hexadecimal"
)
CONDITIONS = [
    OpenApiParameter(name, OpenApiTypes.STR, OpenApiParameter.HEADER, description=meaning)
    for name, meaning in (
        ("If-None-Match", "an ETag: 304 if it is still that of the file"),
        ("If-Match", "an ETag: 412 if it is no longer that of the file"),
        ("Range", "one range of bytes, such as `bytes=1000-`"),
        ("If-Range", "an ETag: the range if it is still that of the file, else the whole"),
    )
]
REFUSED_UPDATES = {
    400: invalid(
        "Missing required field: round",
        wrong_state=f"Training with ID {ID} is in state C",
        round_closed=f"Training with ID {ID} is not currently in round 3",
    ),
    403: refuses(permission_denied=f"You are not a participant of training {ID}!"),
    404: refuses(not_found=f"Model with ID {ID} does not have a training process running"),
    409: refuses(already_submitted="another update of yours counts in round 3 already"),
}
UPDATE_ANSWERS = REFUSED_UPDATES | dict.fromkeys((200, 201), says("Model Update Accepted", "update_id"))

UPDATING = ("receive_update", "receive_raw_update")
ANY_METADATA = PolymorphicProxySerializer(
    "AnyMetadata", [MetadataSerializer, LocalMetadataSerializer], resource_type_field_name=None
)
LOCAL_TOO = ("retrieve", "metadata", "preprocessing", "checkpoints", "lineage", "metrics", "destroy")
"""Actions whose path may have the id of a local model."""


class ModelViewSet(ResourceViewSet):
    """Upload models and download them, send updates and metrics."""

    thing = "Model"
    query_class = ModelQuery
    serializer_class = ModelSerializer
    serializer_class_of = {  # noqa: RUF012
        "create": ModelUploadSerializer,
        "receive_update": UpdateSerializer,
        "report_metrics": MetricsReportSerializer,
        "send_calibration": CalibrationSubmissionSerializer,
        "set_preprocessing": PreprocessingSerializer,
        "swag": SwagSerializer,
    }
    permission_classes = (IsAuthenticated, MaySeeModel)
    permission_classes_of = {  # noqa: RUF012
        "destroy": (IsAuthenticated, OwnsModelOrSteers),
        "report_metrics": (IsAuthenticated, MayReportMetrics),
        "set_preprocessing": (IsAuthenticated, OwnsModel),
        # Who may send something of a round depends on that round, which trainings/ knows.
        **dict.fromkeys((*UPDATING, "swag", "send_calibration"), (IsAuthenticated,)),
    }
    parser_classes = (MultiPartParser, FormParser, JSONParser)

    def get_queryset(self) -> QuerySet[Model]:
        if self.action == "list":
            return models_of(self.request.user).order_by("created_at", "pk")
        return Model.objects.with_details() if self.action == "metadata" else Model.objects.all()

    def find(self, pk: UUID) -> Model | Update | None:
        if self.action in UPDATING:
            return submissions.find_target(pk)
        found = super().find(pk)
        if found is None and self.action in LOCAL_TOO:
            return Update.objects.local_models().filter(pk=pk).first()
        return found

    @extend_schema(responses=ANY_MODEL)
    def list(self, request: Request) -> Response:
        """The models that you own or that are trained where you take part, then the local ones that you may see."""
        models = self.filter_queryset(self.get_queryset())
        updates = Update.objects.local_models().visible_to(request.user).order_by("received_at", "pk")
        updates = LocalModelQuery(data=request.query_params.dict()).filtered(updates)
        return models_listed(self, models, updates)

    @extend_schema(
        request={"multipart/form-data": ModelUploadSerializer, "application/json": EnsembleCreationSerializer},
        responses={
            201: says("Model Upload Accepted", "model_id"),
            400: invalid(
                "Missing required field: name",
                "No uploaded file 'model_file' found.",
                invalid_file="Invalid model file: it is empty",
            ),
        },
    )
    def create(self, request: Request) -> Response:
        """Upload a model file, of which nothing is ever run; or name models of which this one is the mean."""
        if isinstance(request.data, dict) and request.data.get("type") == Kind.MEAN:
            fields = _validated(EnsembleCreationSerializer, request)
            return self._response(model_accepted(create_ensemble(request.user, **fields)))
        fields = _validated(ModelUploadSerializer, request)
        incoming = _intact(fields.pop("model_file"), request)
        model = services.upload_model(incoming, owner=request.user, **fields)
        return self._response(model_accepted(model))

    @extend_schema(
        parameters=[DownloadSerializer, *CONDITIONS],
        responses={
            (200, MEDIA_TYPE): bytes,
            (206, MEDIA_TYPE): bytes,
            304: OpenApiResponse(description="The file is still the one with that ETag."),
            409: refuses(made_of_models=f"Model {ID} is a MEAN model; download its members: {ID}, {ID}"),
            412: refuses(precondition_failed=OTHER_ETAG),
            416: refuses(range_not_satisfiable="the file has 1,000 bytes, and none of those that were asked for"),
        },
    )
    def retrieve(self, request: Request, pk: str) -> HttpResponseBase:
        """Download the model with its latest tensors or those of a round; Range and If-None-Match are understood."""
        model = self.get_object()
        wanted = _validated(DownloadSerializer, request.query_params.dict())
        return model_response(request._request, local_models.download(model, **wanted))

    @extend_schema(
        responses={200: says("Model removed!"), 409: refuses(in_use=f"Model {ID} is used by training {ID}.")}
    )
    def destroy(self, request: Request, pk: str) -> Response:
        """Remove the model with its files, unless something needs it; the history of its training stays."""
        remove_model(self.get_object())
        return Response({"detail": "Model removed!"})

    @extend_schema(
        operation_id="models_receive_update",
        request={"multipart/form-data": UpdateSerializer},
        responses=UPDATE_ANSWERS,
        parameters=[DIGEST_HEADER],
    )
    def receive_update(self, request: Request, pk: str) -> Response:
        """Send an update in the open round; the same bytes again get the same answer."""
        model = self.get_object()
        fields = _validated(UpdateSerializer, request)
        incoming = _intact(fields.pop("model_file"), request)
        return self._submit(model, incoming, fields)

    @extend_schema(
        operation_id="models_receive_raw_update",
        request={MEDIA_TYPE: bytes},
        responses=UPDATE_ANSWERS,
        parameters=[UpdateFieldsSerializer, DIGEST_HEADER],
    )
    @action(
        detail=True, methods=["put"], url_path="update", url_name="update", name="Update", parser_classes=(BytesParser,)
    )
    def receive_raw_update(self, request: Request, pk: str) -> Response:
        """Send an update whose body is the file alone; answers as the form does."""
        model = self.get_object()
        fields = _validated(UpdateFieldsSerializer, request.query_params)
        fields["is_first"] = submissions.check(model, request.user, round=fields["round"])
        with receive_body(request, limit=settings.MAX_UPLOAD_BYTES) as incoming:
            return self._submit(model, incoming, fields)

    @extend_schema(responses=ANY_METADATA)
    @action(detail=True)
    def metadata(self, request: Request, pk: str) -> Response:
        """What the model is, and what tensors it consists of."""
        model = self.get_object()
        kind = MetadataSerializer if isinstance(model, Model) else LocalMetadataSerializer
        context = {**self.get_serializer_context(), "contents": local_models.contents(model)}
        return Response(kind(model, context=context).data)

    @extend_schema(
        request={"multipart/form-data": SwagSerializer},
        responses=REFUSED_UPDATES | dict.fromkeys((200, 201), says("SWAG Statistic Accepted")),
    )
    @action(detail=True, methods=["post"], name="SWAG statistic")
    def swag(self, request: Request, pk: str) -> Response:
        """Send the moments of your parameters in a SWAG round; the same bytes again get the same answer."""
        model = self.get_object()
        is_new = submit_moments(model, request.user, **_validated(SwagSerializer, request))
        code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
        headers = self.location_of("detail", model.pk)
        return Response({"detail": "SWAG Statistic Accepted"}, code, headers=headers)

    @extend_schema(
        parameters=CONDITIONS,
        responses={
            (200, MEDIA_TYPE): bytes,
            (206, MEDIA_TYPE): bytes,
            304: OpenApiResponse(description="The file is still the one with that ETag."),
            404: refuses(not_found=f"Model '{ID}' has no preprocessing model defined."),
            412: refuses(precondition_failed=OTHER_ETAG),
            416: refuses(range_not_satisfiable="the file has 1,000 bytes, and none of those that were asked for"),
        },
    )
    @action(detail=True)
    def preprocessing(self, request: Request, pk: str) -> HttpResponseBase:
        """Download the module that inputs go through first."""
        return model_response(request._request, local_models.preprocessing(self.get_object()))

    @extend_schema(
        request={"multipart/form-data": PreprocessingSerializer},
        responses={
            202: says("Proprocessing Model Upload Accepted"),
            403: refuses(permission_denied=f"You are not the owner of model {ID}!"),
        },
    )
    @preprocessing.mapping.post
    def set_preprocessing(self, request: Request, pk: str) -> Response:
        """Upload the module that inputs go through first; it takes the place of an earlier one."""
        model = self.get_object()
        fields = _validated(PreprocessingSerializer, request)
        set_preprocessing(model, fields["model_preprocessing_file"])
        headers = self.location_of("preprocessing", model.pk)
        # As the seed spells it.
        return Response({"detail": "Proprocessing Model Upload Accepted"}, status.HTTP_202_ACCEPTED, headers=headers)

    @extend_schema(responses=CheckpointSerializer(many=True))
    @action(detail=True, **UNFILTERED)
    def checkpoints(self, request: Request, pk: str) -> Response:
        """The model after each round, the oldest first, and what went into it."""
        model = local_models.as_global(self.get_object(), "checkpoints")
        history = History(model)
        page = self.paginate_queryset(history)
        context = {"model": model, "request": request}
        steps = CheckpointSerializer(history if page is None else page, many=True, context=context).data
        return Response(steps) if page is None else self.get_paginated_response(steps)

    @extend_schema(responses=LineageSerializer)
    @action(detail=True)
    def lineage(self, request: Request, pk: str) -> Response:
        """From which models this one was copied, after which of their rounds, and which were copied from it."""
        model = local_models.as_global(self.get_object(), "lineage")
        return Response(LineageSerializer(lineage_of(model, request.user)).data)

    @extend_schema(responses=MetricSerializer(many=True))
    @action(detail=True, serializer_class=MetricSerializer, query_class=MetricQuery)
    def metrics(self, request: Request, pk: str) -> Response:
        """All metrics that were reported for the model, the oldest first."""
        return self.listed(local_models.metrics(self.get_object()))

    @extend_schema(
        request=MetricsReportSerializer,
        responses={
            201: says("Model Metrics Upload Accepted", "model_id"),
            400: invalid("Metric names or values are missing", "Metric names and values must have the same length"),
        },
    )
    @metrics.mapping.post
    def report_metrics(self, request: Request, pk: str) -> Response:
        """Report metrics; in a test round they are the answer that is awaited."""
        model = self.get_object()
        note_seen(request.user)
        lifecycle.receive_metrics(model, request.user, **_validated(MetricsReportSerializer, request))
        fault_point("metrics.after_commit")
        answer = {"detail": "Model Metrics Upload Accepted", "model_id": str(model.pk)}
        return Response(answer, status.HTTP_201_CREATED, headers=self.location_of("metrics", model.pk))

    @extend_schema(
        parameters=[CalibrationQuery],
        responses={200: CalibrationSerializer, 404: refuses(not_found=NOT_CALIBRATED.format(round=3, id=ID))},
    )
    @action(detail=True, parser_classes=(JSONParser,), **UNFILTERED)
    def calibration(self, request: Request, pk: str) -> Response:
        """How well calibrated a checkpoint is, from what its participants have counted; those of one are its own."""
        wanted = _validated(CalibrationQuery, request.query_params.dict())
        found = shown_calibration(self.get_object(), wanted.get("round"), shown_to=request.user)
        return Response(CalibrationSerializer(found, context=wanted).data)

    @extend_schema(
        request=CalibrationSubmissionSerializer,
        responses={
            **dict.fromkeys((200, 201), says("Calibration Accepted")),
            400: invalid("bin_correct[8] is 2, of 1 rows", f"round: model {ID} has no checkpoint 3"),
            403: refuses(permission_denied=f"You are not a participant of training {ID}!"),
            409: refuses(already_submitted="other calibration statistics of yours count in round 3 already"),
        },
    )
    @calibration.mapping.post
    def send_calibration(self, request: Request, pk: str) -> Response:
        """Send what you have counted of a checkpoint; during its test others take their place, the same ones always."""
        model = self.get_object()
        fields = _validated(CalibrationSubmissionSerializer, request)
        is_new = receive_calibration(model, request.user, **fields)
        code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
        (location,) = self.location_of("calibration", model.pk).values()
        headers = {"Location": f"{location}?round={fields['round']}"}
        return Response({"detail": "Calibration Accepted"}, code, headers=headers)

    def _submit(self, model: Model | Update, incoming: IncomingFile, fields: dict[str, Any]) -> Response:
        update, is_new = submissions.submit(model, self.request.user, incoming, **fields)
        fault_point("upload.before_response")
        return self._response(update_accepted(update.pk, model, is_new=is_new))

    def _response(self, answer: Answer) -> Response:
        headers = self.location_of("detail", answer["model"])
        return Response(answer["body"], answer["status"], headers=headers)


def _validated(serializer_class: type[Any], given: Request | QueryDict | dict[str, str]) -> dict[str, Any]:
    serializer = serializer_class(data=given.data if isinstance(given, Request) else given)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def _intact(incoming: IncomingFile, request: Request) -> IncomingFile:
    incoming.check_digest(request.headers.get("X-Content-SHA256"))
    return incoming
