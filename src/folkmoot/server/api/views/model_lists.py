"""Lists of models of all kinds."""

from __future__ import annotations

from django.db.models import QuerySet
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from folkmoot.server.api.lists import Joined
from folkmoot.server.api.serializers.models import shown
from folkmoot.server.registry.models import Model
from folkmoot.server.trainings.models import Update


def models_listed(view: GenericViewSet, models: QuerySet[Model], updates: QuerySet[Update]) -> Response:
    """The models, the local ones behind the others, whole or the page that the view was asked for."""
    context = view.get_serializer_context()
    page = view.paginate_queryset(Joined(models, updates))
    if page is None:
        return Response(shown(models, updates, context))
    globally, locally = ([each for each in page if isinstance(each, kind)] for kind in (Model, Update))
    return view.get_paginated_response(shown(globally, locally, context))
