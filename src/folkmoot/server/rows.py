"""Reading one row."""

from __future__ import annotations

from typing import TypeVar

from django.core.exceptions import ObjectDoesNotExist
from django.db.models import Model, QuerySet

Row = TypeVar("Row", bound=Model)


def the_one(rows: QuerySet[Row]) -> Row | None:
    """The row, where there can be no more than one; unlike `first` it has nothing sorted, which takes its time."""
    try:
        return rows.get()
    except ObjectDoesNotExist:
        return None
