"""Whether the server is alive, and whether it can work."""

from __future__ import annotations

import os

from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse

from folkmoot.server.storage import get_storage


def healthz(request: HttpRequest) -> JsonResponse:
    """The process answers."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> JsonResponse:
    """The database and the storage answer too; 503 names the one that does not."""
    checks = {"database": _database_answers(), "storage": os.access(get_storage().root, os.W_OK)}
    ready = all(checks.values())
    return JsonResponse({"status": "ok" if ready else "unavailable", "checks": checks}, status=200 if ready else 503)


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True
