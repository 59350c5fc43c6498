"""What Prometheus asks for."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from rest_framework.permissions import AllowAny, IsAdminUser
from rest_framework.request import Request

from folkmoot.server.api.figures import Figures
from folkmoot.server.api.views.base import BaseViewSet

REGISTRY.register(Figures())


FIGURES = OpenApiResponse({"type": "string", "format": "prometheus"}, "The figures.")
EXAMPLE = OpenApiExample("figures", 'folkmoot_trainings{state="ongoing"} 2.0', media_type="text/plain")


class FiguresViewSet(BaseViewSet):
    """Figures of this process and of the hub, in Prometheus' text format."""

    permission_classes_of: ClassVar = {"show": (AllowAny if settings.METRICS == "open" else IsAdminUser,)}

    @extend_schema(
        operation_id="metrics", tags=["health"], responses={(200, "text/plain"): FIGURES}, examples=[EXAMPLE]
    )
    def show(self, request: Request) -> HttpResponse:
        """Figures of this process and of the hub, as Prometheus reads them."""
        return HttpResponse(generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)
