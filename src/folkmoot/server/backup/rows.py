"""The rows of a hub as lines of JSON, as one moment had them, and back again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.core import serializers
from django.core.management.color import no_style
from django.core.serializers.base import DeserializationError, DeserializedObject
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, models, transaction
from django.db.migrations.loader import MigrationLoader

from folkmoot.errors import InvalidFile

LEFT_OUT = ("uploads",)
"""Uploads under way: their files are on the disk of one process, and whoever sends them begins again."""
BATCH = 500


class _Exact(DjangoJSONEncoder):
    """Django's own, but for times, of which that one drops the microseconds."""

    def default(self, o: Any) -> Any:
        return o.isoformat() if isinstance(o, datetime) else super().default(o)


@contextmanager
def one_moment() -> Iterator[None]:
    """What is read meanwhile is what was there when it began; whoever writes is not kept waiting."""
    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if connection.vendor == "postgresql" else "BEGIN DEFERRED"
    with connection.cursor() as cursor:
        cursor.execute(begin)
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")


def migrations() -> dict[str, str]:
    """The last migration of each app that is in the database."""
    applied = sorted(MigrationLoader(connection).applied_migrations)
    return {app: name for app, name in applied if any(kind._meta.app_label == app for kind in _kinds())}


def permissions() -> dict[str, list[str]]:
    """Django numbers them as it pleases: what each number means here."""
    return {str(each.pk): list(each.natural_key()) for each in Permission.objects.select_related("content_type")}


def save(path: Path) -> None:
    """Write all rows."""
    with path.open("w") as file:
        for kind in _kinds():
            everything = kind._default_manager.order_by("pk").iterator(chunk_size=BATCH)
            serializers.serialize("jsonl", everything, stream=file, cls=_Exact)


def any_there() -> bool:
    return any(kind._default_manager.exists() for kind in _kinds())


@transaction.atomic
def load(path: Path, *, permissions: dict[str, list[str]]) -> None:
    """Insert the rows into a database that has none. Raises InvalidFile if they do not fit its tables."""
    numbers = _renumbered(permissions)
    try:
        with path.open() as file:
            for kind, same in groupby(serializers.deserialize("jsonl", file), key=lambda each: type(each.object)):
                for rows in _batches(same):
                    _insert(kind, rows, numbers)
    except DeserializationError as error:
        raise InvalidFile("the backup's rows are damaged") from error
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), _kinds()):
            cursor.execute(statement)


def _kinds() -> list[type[models.Model]]:
    ours = [config for config in apps.get_app_configs() if config.name.startswith("folkmoot.")]
    return [Group, *(kind for config in ours if config.label not in LEFT_OUT for kind in config.get_models())]


def _insert(kind: Any, rows: list[DeserializedObject], numbers: dict[int, int]) -> None:
    kind._default_manager.bulk_create([row.object for row in rows])
    for row in rows:
        for name, related in (row.m2m_data or {}).items():
            is_permission = kind._meta.get_field(name).related_model is Permission
            chosen = [numbers[each] for each in map(int, related) if each in numbers] if is_permission else related
            if chosen:
                getattr(row.object, name).set(chosen)


def _renumbered(permissions: dict[str, list[str]]) -> dict[int, int]:
    here: dict[tuple[str, ...], int] = {
        each.natural_key(): each.pk for each in Permission.objects.select_related("content_type")
    }
    return {int(old): here[tuple(key)] for old, key in permissions.items() if tuple(key) in here}


def _batches(rows: Iterable[DeserializedObject]) -> Iterator[list[DeserializedObject]]:
    batch: list[DeserializedObject] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
