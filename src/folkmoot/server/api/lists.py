"""How every list is asked for: filters by exact value, an order, and a page of it for whoever wants one.

Without `limit` a list is whole. With or without, the body is a plain array; what belongs to a page is in the headers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from django.db.models import Model, QuerySet
from drf_spectacular.extensions import OpenApiFilterExtension, OpenApiSerializerFieldExtension
from rest_framework import serializers
from rest_framework.filters import BaseFilterBackend
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.request import Request
from rest_framework.response import Response

MOST = 1000
SHOWN_TO_BROWSERS = 100


class Joined:
    """Two querysets as one list, the second behind the first, of which a page can be cut."""

    def __init__(self, first: QuerySet, second: QuerySet) -> None:
        self._first, self._second = first, second
        self._border = 0

    def count(self) -> int:
        self._border = self._first.count()
        return self._border + self._second.count()

    def __getitem__(self, page: slice) -> Iterator[Model]:
        """To be called after `count`, as pages are."""
        start, stop = max(0, page.start - self._border), max(0, page.stop - self._border)
        return chain(self._first[page], self._second[start:stop])


class OrderingField(serializers.Field):
    """Names of fields, the first one first, separated by commas; `-` before a name turns its order round."""

    def __init__(self, *names: str, **kwargs: Any) -> None:
        super().__init__(required=False, **kwargs)
        self.names = names

    def to_internal_value(self, data: Any) -> list[str]:
        wanted = [name.strip() for name in str(data).split(",")]
        unknown = [name for name in wanted if name.removeprefix("-") not in self.names]
        if unknown:
            raise serializers.ValidationError(f"{unknown[0]!r} is no order; valid ones: {', '.join(self.names)}.")
        return wanted

    def to_representation(self, value: Any) -> Any:
        return value


class ListQuery(serializers.Serializer):
    """What a list may be asked: each field but `ordering` is a filter, its `source` what it is looked up by."""

    def filtered(self, rows: QuerySet) -> QuerySet:
        self.is_valid(raise_exception=True)
        filters = dict(self.validated_data)
        ordering = filters.pop("ordering", None)
        # The id last: pages of rows that are alike must not overlap.
        return rows.filter(**filters).order_by(*ordering, "pk") if ordering else rows.filter(**filters)


class ListFilter(BaseFilterBackend):
    """Asks the view for its `query_class`."""

    def filter_queryset(self, request: Request, queryset: QuerySet, view: Any) -> QuerySet:
        if view.query_class is None:
            return queryset
        # As a dict: what is missing from a form would be a false, what is missing here was not asked.
        query = view.query_class(data=request.query_params.dict())
        refuse_unknown(request, {*query.fields, *PageQuery().fields})
        return query.filtered(queryset)


def refuse_unknown(request: Request, known: set[str]) -> None:
    """A filter that is misspelt would show all there is."""
    # `format` is the framework's own, and browsers are made to fetch anew with `_=<time>`.
    unknown = set(request.query_params) - known - {"format", "_"}
    if unknown:
        raise serializers.ValidationError({name: ["Unknown parameter."] for name in sorted(unknown)})


class PageQuery(serializers.Serializer):
    limit = serializers.IntegerField(
        required=False, min_value=1, help_text=f"at most so many; more than {MOST:,} counts as {MOST:,}"
    )
    offset = serializers.IntegerField(
        default=0, min_value=0, help_text="with `limit`: leave out so many from the beginning"
    )


class Page(LimitOffsetPagination):
    """`X-Total-Count` says how many there are in all, `Link` where the next and the previous page are."""

    max_limit = MOST

    def get_limit(self, request: Request) -> int | None:
        limit = self._asked(request).get("limit")
        if limit is None:
            # A browser would lay out all of them for minutes.
            return SHOWN_TO_BROWSERS if request.accepted_renderer.format == "api" else None
        return min(limit, MOST)

    def get_offset(self, request: Request) -> int:
        return self._asked(request)["offset"]

    def get_paginated_response(self, data: Any) -> Response:
        links = {"next": self.get_next_link(), "prev": self.get_previous_link()}
        link = ", ".join(f'<{url}>; rel="{name}"' for name, url in links.items() if url)
        return Response(data, headers={"X-Total-Count": str(self.count)} | ({"Link": link} if link else {}))

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return schema

    def _asked(self, request: Request) -> dict[str, Any]:
        query = PageQuery(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        return query.validated_data


class DescribedOrdering(OpenApiSerializerFieldExtension):
    target_class = OrderingField

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        name = f"-?({'|'.join(self.target.names)})"
        described = f"{', '.join(self.target.names)}; several by commas, each with a `-` before it for descending"
        return {"type": "string", "pattern": f"^{name}(,{name})*$", "description": described}


class RowByRow(serializers.ListSerializer):
    """Keeps no row once it is shown: a list may have a hundred thousand."""

    def to_representation(self, rows: Any) -> list[Any]:
        return super().to_representation(rows.iterator() if isinstance(rows, QuerySet) else rows)


class _Described(OpenApiFilterExtension):
    """The parameters in the schema, from the serializer's fields."""

    def describe(self, auto_schema: Any, query: serializers.Serializer) -> list[dict[str, Any]]:
        return [self._parameter(auto_schema, name, field) for name, field in query.fields.items()]

    def _parameter(self, auto_schema: Any, name: str, field: serializers.Field) -> dict[str, Any]:
        schema = auto_schema._map_serializer_field(field, "request")
        described = {"description": schema.pop("description")} if "description" in schema else {}
        schema = {key: value for key, value in schema.items() if key not in ("default", "title", "writeOnly")}
        return {"name": name, "in": "query", "required": False, "schema": schema} | described


class DescribedFilter(_Described):
    target_class = ListFilter

    def get_schema_operation_parameters(self, auto_schema: Any, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        query_class = auto_schema.view.query_class
        return self.describe(auto_schema, query_class()) if query_class else []


class DescribedPage(_Described):
    target_class = Page

    def get_schema_operation_parameters(self, auto_schema: Any, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        return self.describe(auto_schema, PageQuery())
