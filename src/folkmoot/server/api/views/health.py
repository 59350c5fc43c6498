"""Whether the server is alive, and whether it can work."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.conf import settings
from django.db import Error, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from folkmoot.server import broker
from folkmoot.server.api.errors import RETRY_AFTER_SECONDS
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
    """The database and the storage answer too; 503 names the one that does not.

    Without its broker a hub that has one is `degraded`: it takes all requests, and does what follows from them later.
    """
    needed = {"database": _database_answers(), "storage": get_storage().answers()}
    wanted = {"broker": not broker.fault_of(settings.BROKER_URL)} if settings.BROKER_URL else {}
    ready = all(needed.values())
    status = "unavailable" if not ready else "ok" if all(wanted.values()) else "degraded"
    answer = JsonResponse({"status": status, "checks": needed | wanted}, status=200 if ready else 503)
    if not ready:
        answer["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return answer


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error:
        return False
    return True
