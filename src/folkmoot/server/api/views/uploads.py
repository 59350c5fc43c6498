"""Uploads in chunks: opened, continued, committed."""

from __future__ import annotations

from functools import partial

from django.conf import settings
from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from folkmoot.server.api.parsers import BytesParser
from folkmoot.server.api.permissions import IsUploader
from folkmoot.server.api.raw_bodies import MEDIA_TYPE, receive_body
from folkmoot.server.api.schema import ID, refuses
from folkmoot.server.api.serializers.uploads import (
    ChunkSerializer,
    CommitSerializer,
    OpenUploadSerializer,
    UploadSerializer,
)
from folkmoot.server.api.targets import find_target
from folkmoot.server.api.views.base import ResourceViewSet
from folkmoot.server.api.views.models import ModelViewSet
from folkmoot.server.faults import fault_point
from folkmoot.server.uploads import services
from folkmoot.server.uploads.models import Upload

OFFSET = "Upload-Offset"
DIGEST = "X-Content-SHA256"
OFFSET_SENT = OpenApiParameter(
    OFFSET, OpenApiTypes.INT64, OpenApiParameter.HEADER, required=True, description="how many bytes the upload has"
)
DIGEST_SENT = OpenApiParameter(
    DIGEST, OpenApiTypes.STR, OpenApiParameter.HEADER, required=True, description="SHA-256 of the chunk, in hexadecimal"
)
OFFSET_ANSWERED = OpenApiParameter(
    OFFSET, OpenApiTypes.INT64, OpenApiParameter.HEADER, response=[200, 204, 409], description="where it goes on"
)


DELIVERED = OpenApiResponse(
    {
        "type": "object",
        "properties": {
            "detail": {"type": "string"},
            "model_id": {"type": "string", "format": "uuid"},
            "update_id": {"type": "string", "format": "uuid"},
        },
        "required": ["detail"],
    },
    examples=[
        OpenApiExample("a model", {"detail": "Model Upload Accepted", "model_id": ID}),
        OpenApiExample("an update", {"detail": "Model Update Accepted", "update_id": ID}),
    ],
)


@extend_schema_view(list=extend_schema(description="My uploads that are not finished."))
class UploadViewSet(ResourceViewSet):
    """Upload a large file in chunks, and go on where it was after the line has broken."""

    thing = "Upload"
    serializer_class = UploadSerializer
    serializer_class_of = {"create": OpenUploadSerializer, "commit": CommitSerializer}  # noqa: RUF012
    parser_classes_of = {"partial_update": (BytesParser,)}  # noqa: RUF012
    permission_classes = (IsAuthenticated, IsUploader)

    def get_queryset(self) -> QuerySet[Upload]:
        if self.action == "list":
            return Upload.objects.of(self.request.user).unfinished()
        return Upload.objects.all()

    @extend_schema(
        request=OpenUploadSerializer,
        responses={
            200: UploadSerializer,
            201: UploadSerializer,
            403: refuses(permission_denied=f"You are not a participant of training {ID}!"),
            404: refuses(not_found=f"Model with ID {ID} does not have a training process running"),
            409: refuses(too_many_uploads="you have 16 unfinished uploads, the most that are kept"),
        },
    )
    def create(self, request: Request) -> Response:
        """Open an upload; one of the same file for the same target that is unfinished is continued."""
        opening = OpenUploadSerializer(data=request.data)
        opening.is_valid(raise_exception=True)
        wanted = opening.validated_data
        find_target(wanted["target"]).check(request.user, wanted["fields"], wanted["sha256"])
        upload, is_new = services.open_upload(request.user, **wanted)
        code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
        return Response(UploadSerializer(upload).data, code, headers=self.location_of("detail", upload.pk))

    @extend_schema(parameters=[OFFSET_ANSWERED])
    def retrieve(self, request: Request, pk: str) -> Response:
        """See where the upload goes on; HEAD tells it in its headers alone."""
        upload = self.get_object()
        headers = {OFFSET: str(upload.offset), "Upload-Length": str(upload.size), "Cache-Control": "no-store"}
        return Response(UploadSerializer(upload).data, headers=headers)

    @extend_schema(
        request={MEDIA_TYPE: bytes},
        responses={
            204: OpenApiResponse(description="The chunk counts, and is on the disk."),
            409: refuses(wrong_offset="the upload goes on at byte 1,000, not at byte 0"),
        },
        parameters=[OFFSET_SENT, DIGEST_SENT, OFFSET_ANSWERED],
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        """Send the next chunk: it counts whole or not at all."""
        upload = self.get_object()
        chunk = ChunkSerializer(data={"offset": request.headers.get(OFFSET), "sha256": request.headers.get(DIGEST)})
        chunk.is_valid(raise_exception=True)
        offset = chunk.validated_data["offset"]
        services.check_takes(upload, offset=offset)
        with receive_body(request, limit=min(settings.MAX_CHUNK_BYTES, upload.size - offset)) as body:
            offset = services.append(upload, body, offset=offset)
        return Response(status=status.HTTP_204_NO_CONTENT, headers={OFFSET: str(offset)})

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Throw the upload away; what was made of it stays."""
        services.discard(Upload.objects.filter(pk=self.get_object().pk))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        request=CommitSerializer,
        responses={
            200: DELIVERED,
            201: DELIVERED,
            409: refuses(already_submitted="another update of yours counts in round 3 already"),
            422: refuses(digest_mismatch="the file has another SHA-256"),
        },
    )
    @action(detail=True, methods=["post"])
    def commit(self, request: Request, pk: str) -> Response:
        """Use the file for what it was uploaded for; answers as the target would, and the same when asked again."""
        upload = self.get_object()
        body = CommitSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        deliver = partial(find_target(upload.target).deliver, upload)
        answer = services.commit(upload, sha256=body.validated_data["sha256"], deliver=deliver)
        fault_point("upload.before_response")
        headers = ModelViewSet(basename="model", request=request).location_of("detail", answer["model"])
        return Response(answer["body"], answer["status"], headers=headers)
