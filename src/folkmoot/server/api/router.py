"""The routes below /api/."""

from __future__ import annotations

from rest_framework.permissions import AllowAny
from rest_framework.routers import APIRootView, DefaultRouter, Route

from folkmoot.server.api.views.groups import GroupViewSet
from folkmoot.server.api.views.inference import InferenceViewSet
from folkmoot.server.api.views.models import ModelViewSet
from folkmoot.server.api.views.notifications import NotificationViewSet
from folkmoot.server.api.views.trainings import TrainingViewSet
from folkmoot.server.api.views.uploads import UploadViewSet
from folkmoot.server.api.views.users import TokenViewSet, UserViewSet


class ResourcesView(APIRootView):
    """The resources of this server."""

    permission_classes = (AllowAny,)


class Router(DefaultRouter):
    """A detail route takes POST as well: an update to a model."""

    include_format_suffixes = False
    APIRootView = ResourcesView
    routes = [  # noqa: RUF012
        route._replace(mapping={**route.mapping, "post": "receive_update"})
        if isinstance(route, Route) and route.detail
        else route
        for route in DefaultRouter.routes
    ]


router = Router()
router.register("users", UserViewSet, basename="user")
router.register("groups", GroupViewSet, basename="group")
router.register("tokens", TokenViewSet, basename="token")
router.register("models", ModelViewSet, basename="model")
router.register("uploads", UploadViewSet, basename="upload")
router.register("trainings", TrainingViewSet, basename="training")
router.register("inference", InferenceViewSet, basename="inference")
router.register("notifications", NotificationViewSet, basename="notification")
