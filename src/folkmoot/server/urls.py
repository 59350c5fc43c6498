"""Everything that the server answers."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from folkmoot.server.api.router import router
from folkmoot.server.api.views.health import healthz, readyz
from folkmoot.server.api.views.metrics import FiguresViewSet
from folkmoot.server.api.views.schema import RedocView, SchemaView, SwaggerView

urlpatterns = [
    path("healthz", healthz),
    path("readyz", readyz),
    *([path("metrics", FiguresViewSet.as_view({"get": "show"}))] if settings.METRICS != "off" else []),
    path("api/schema/", SchemaView.as_view(), name="schema"),
    path("api/schema/swagger-ui/", SwaggerView.as_view(url_name="schema"), name="swagger-ui"),
    path("api/schema/redoc/", RedocView.as_view(url_name="schema"), name="redoc"),
    path("api/", include(router.urls)),
    path("api-auth/", include("rest_framework.urls")),
    *([path("admin/", admin.site.urls)] if settings.ADMIN else []),
]

handler400 = "folkmoot.server.api.errors.bad_request"
handler404 = "folkmoot.server.api.errors.not_found"
handler500 = "folkmoot.server.api.errors.server_error"
