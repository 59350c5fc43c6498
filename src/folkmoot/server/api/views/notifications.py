"""My notifications. This answers at once; long_poll.py makes it wait."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from folkmoot.server.api.serializers.notifications import NotificationsSerializer, PollSerializer
from folkmoot.server.api.views.base import BaseViewSet
from folkmoot.server.notifications.delivery import waiting_for


class NotificationViewSet(BaseViewSet):
    """What participants ask for work."""

    @extend_schema(parameters=[PollSerializer], responses=NotificationsSerializer)
    def list(self, request: Request) -> Response:
        """My notifications after the given one, oldest first; without `after` all that still ask for work."""
        query = PollSerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        notifications, last = waiting_for(request.user, after=query.validated_data["after"])
        answer = NotificationsSerializer({"notifications": notifications, "last_id": last})
        return Response(answer.data, headers={"Cache-Control": "no-store"})
