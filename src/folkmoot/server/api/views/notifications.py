"""My notifications. This answers at once; long_poll.py makes it wait."""

from __future__ import annotations

from http import HTTPStatus

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from folkmoot.server.api.lists import refuse_unknown
from folkmoot.server.api.schema import refuses
from folkmoot.server.api.serializers.notifications import NotificationsSerializer, PollSerializer
from folkmoot.server.api.unchanged import etag_of, is_known
from folkmoot.server.api.views.base import BaseViewSet
from folkmoot.server.notifications.delivery import waiting_for
from folkmoot.server.notifications.presence import note_seen

FULL = "So many wait for work here that there is no place for another; try again."
HEADERS = [
    OpenApiParameter(name, kind, OpenApiParameter.HEADER, description=meaning, response=response)
    for name, kind, meaning, response in (
        ("If-None-Match", OpenApiTypes.STR, "an ETag: 304 if the answer, once it is due, still has it", False),
        ("ETag", OpenApiTypes.STR, "what this answer is known by", [200, 304]),
        ("Retry-After", OpenApiTypes.INT, "after so many seconds", [429]),
    )
]


class NotificationViewSet(BaseViewSet):
    """What participants ask for work."""

    @extend_schema(
        parameters=[PollSerializer, *HEADERS],
        responses={
            200: NotificationsSerializer,
            304: OpenApiResponse(description="The answer is still the one with that ETag."),
            429: refuses(too_many_polls=FULL),
        },
    )
    def list(self, request: Request) -> Response:
        """My notifications after the given one, oldest first; without `after` all that still ask for work."""
        query = PollSerializer(data=request.query_params)
        refuse_unknown(request, set(query.fields))
        query.is_valid(raise_exception=True)
        note_seen(request.user, request.headers.get("User-Agent", ""))
        notifications, last = waiting_for(request.user, after=query.validated_data["after"])
        answer = NotificationsSerializer({"notifications": notifications, "last_id": last}).data
        body = JSONRenderer().render(answer)
        headers = {"Cache-Control": "no-store", "ETag": etag_of(body)}
        # Who waits has to be shown to long_poll.py with what there is; it asks again without waiting.
        if not query.validated_data["wait"] and is_known(headers["ETag"], request.headers.get("If-None-Match", "")):
            return Response(status=HTTPStatus.NOT_MODIFIED, headers=headers | {"Content-Length": str(len(body))})
        return Response(answer, headers=headers)
