"""What all viewsets share: who may ask, what each action has of its own, where things are; objects and lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.db.models import QuerySet
from rest_framework.authentication import SessionAuthentication
from rest_framework.mixins import CreateModelMixin, ListModelMixin, RetrieveModelMixin
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet, ViewSet

from folkmoot.errors import NotFound
from folkmoot.server.api.authentication import BasicAuthentication, TokenAuthentication
from folkmoot.server.api.lists import ListFilter, ListQuery, Page
from folkmoot.server.rows import the_one
from folkmoot.server.trainings.creation import as_uuid

UNFILTERED: dict[str, Any] = {"query_class": None}
"""For actions whose list is shown as it is, whole or a page of it."""


class BaseViewSet(ViewSet):
    """Who may ask, and how, unless an action says otherwise; the one base of all viewsets.

    The `..._of` say, by the name of an action, what that one has in place of the viewset's.
    """

    authentication_classes: tuple = (TokenAuthentication, BasicAuthentication, SessionAuthentication)
    permission_classes: tuple = (IsAuthenticated,)
    authentication_classes_of: ClassVar[Mapping[str, tuple]] = {}
    parser_classes_of: ClassVar[Mapping[str, tuple]] = {}
    permission_classes_of: ClassVar[Mapping[str, tuple]] = {}

    def get_authenticators(self) -> list[Any]:
        return [each() for each in self._own(self.authentication_classes_of, self.authentication_classes)]

    def get_parsers(self) -> list[Any]:
        return [each() for each in self._own(self.parser_classes_of, self.parser_classes)]

    def get_permissions(self) -> list[Any]:
        return [each() for each in self._own(self.permission_classes_of, self.permission_classes)]

    def location_of(self, url_name: str, pk: object) -> dict[str, str]:
        """The header that says where a thing of this viewset is."""
        return {"Location": self.reverse_action(url_name, args=[pk])}

    def _own(self, of_action: Mapping[str, Any], default: Any) -> Any:
        # By the method and not by `self.action`: OPTIONS and the forms of a page look at actions other than the one
        # that runs, and authenticators are needed before it is known.
        name = self.action if self.request is None else self.action_map.get(str(self.request.method).lower())
        return of_action.get(name or "", default)


class GenericResourceViewSet(BaseViewSet, GenericViewSet):
    """Detail routes look among all rows: an unknown or malformed id is 404, someone else's object 403."""

    thing = "Object"
    # A dot does not end an id either: whatever stands there is looked for, and said not to be found.
    lookup_value_regex = "[^/]+"
    serializer_class_of: ClassVar[Mapping[str, type]] = {}
    pagination_class = Page
    filter_backends = (ListFilter,)
    query_class: type[ListQuery] | None = None

    def get_serializer_class(self) -> type[Any]:
        return self._own(self.serializer_class_of, self.serializer_class)

    def get_object(self) -> Any:
        given = self.kwargs["pk"]
        known = self.parse_id(given)
        found = self.find(known) if known is not None else None
        if found is None:
            raise NotFound(f"{self.thing} {given} not found.")
        self.check_object_permissions(self.request, found)
        return found

    def find(self, pk: Any) -> Any:
        """The object with this id, None if there is none; whether it may be seen is asked afterwards."""
        return the_one(self.get_queryset().filter(pk=pk))

    def parse_id(self, given: str) -> object | None:
        """The id as the database knows it; None for what can be none."""
        return as_uuid(given)

    def listed(self, rows: QuerySet, **known: Any) -> Response:
        """Those of the rows that the query asks for, whole or a page; the serializer hears what is `known`."""
        wanted = self.filter_queryset(rows)
        page = self.paginate_queryset(wanted)
        context = {**self.get_serializer_context(), **known}
        shown = self.get_serializer_class()(wanted if page is None else page, many=True, context=context).data
        return Response(shown) if page is None else self.get_paginated_response(shown)

    def get_success_headers(self, data: Any) -> dict[str, str]:
        return self.location_of("detail", data["id"])


class ResourceViewSet(GenericResourceViewSet, CreateModelMixin, ListModelMixin, RetrieveModelMixin):
    """Things that are created, listed and looked at; what else can be done with them is the viewset's own."""
