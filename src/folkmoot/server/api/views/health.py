"""Whether the server is alive, and whether it can work."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps

from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from folkmoot.server.storage import get_storage

View = Callable[[HttpRequest], JsonResponse]


def _only_read(view: View) -> View:
    """Answer 405 as the API does; outside of it Django would answer with a page."""

    @csrf_exempt
    @wraps(view)
    def checked(request: HttpRequest) -> JsonResponse:
        if request.method in ("GET", "HEAD"):
            return view(request)
        body = {"detail": f'Method "{request.method}" not allowed.', "code": "method_not_allowed"}
        return JsonResponse(body, status=405, headers={"Allow": "GET, HEAD"})

    return checked


@_only_read
def healthz(request: HttpRequest) -> JsonResponse:
    """The process answers."""
    return JsonResponse({"status": "ok"})


@_only_read
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
