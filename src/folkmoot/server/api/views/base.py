"""What all viewsets share: finding the object of a detail route."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from rest_framework.reverse import reverse
from rest_framework.viewsets import GenericViewSet

from folkmoot.errors import NotFound
from folkmoot.server.trainings.creation import as_uuid

DETAIL = {"type": "object", "properties": {"detail": {"type": "string"}}}
"""In the schema: an answer that is one sentence."""


class ResourceViewSet(GenericViewSet):
    """Detail routes look among all rows: an unknown or malformed id is 404, someone else's object 403."""

    thing = "Object"

    def get_object(self) -> Any:
        given = self.kwargs["pk"]
        known = as_uuid(given)
        found = self.find(known) if known else None
        if found is None:
            raise NotFound(f"{self.thing} {given} not found.")
        self.check_object_permissions(self.request, found)
        return found

    def find(self, pk: UUID) -> Any:
        """The object with this id, None if there is none; whether it may be seen is asked afterwards."""
        return self.get_queryset().filter(pk=pk).first()

    def location_of(self, name: str, pk: object) -> dict[str, str]:
        """The header that says where a thing is."""
        return {"Location": reverse(name, kwargs={"pk": pk}, request=self.request)}
