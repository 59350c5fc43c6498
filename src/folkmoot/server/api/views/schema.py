"""The description of the API, for programs and for people, open to everybody."""

from __future__ import annotations

from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerView
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.views import APIView


class _Shown(APIView):
    """Only what is read has the view's own format: refusals and OPTIONS are JSON, as everywhere."""

    def get_renderers(self) -> list[BaseRenderer]:
        return super().get_renderers() if self.request.method in ("GET", "HEAD") else [JSONRenderer()]


class SchemaView(_Shown, SpectacularAPIView):
    """The API as OpenAPI 3.1, in YAML or JSON."""


class SwaggerView(_Shown, SpectacularSwaggerView):
    """The API as pages of Swagger UI, from which requests can be sent."""


class RedocView(_Shown, SpectacularRedocView):
    """The API as one long page, by ReDoc."""
