"""From errors to answers: the one place that knows which status a domain error has."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, JsonResponse
from django.http.request import UnreadablePostError
from rest_framework import status
from rest_framework.exceptions import APIException
from rest_framework.response import Response
from rest_framework.views import exception_handler, set_rollback

from folkmoot import errors
from folkmoot.server import request_ids
from folkmoot.server.api.content_policy import NOTHING
from folkmoot.server.storage.failing import as_unavailable

# The seed's paths answer 400 where the state or the tensors are at fault; the code tells them apart.
STATUS: dict[type[errors.FolkmootError], int] = {
    errors.StorageFull: status.HTTP_507_INSUFFICIENT_STORAGE,
    errors.NotInstalled: status.HTTP_501_NOT_IMPLEMENTED,
    errors.TooSlow: status.HTTP_408_REQUEST_TIMEOUT,
    errors.Unavailable: status.HTTP_503_SERVICE_UNAVAILABLE,
    errors.AlreadySubmitted: status.HTTP_409_CONFLICT,
    errors.InUse: status.HTTP_409_CONFLICT,
    errors.MadeOfModels: status.HTTP_409_CONFLICT,
    errors.WrongOffset: status.HTTP_409_CONFLICT,
    errors.TooManyUploads: status.HTTP_409_CONFLICT,
    errors.Conflict: status.HTTP_400_BAD_REQUEST,
    errors.DigestMismatch: status.HTTP_422_UNPROCESSABLE_ENTITY,
    errors.ModelFailed: status.HTTP_422_UNPROCESSABLE_ENTITY,
    errors.TooLarge: status.HTTP_413_REQUEST_ENTITY_TOO_LARGE,
    errors.InvalidInput: status.HTTP_400_BAD_REQUEST,
    errors.NotAuthenticated: status.HTTP_401_UNAUTHORIZED,
    errors.NotAllowed: status.HTTP_403_FORBIDDEN,
    errors.Removed: status.HTTP_410_GONE,
    errors.NotFound: status.HTTP_404_NOT_FOUND,
}
RETRY_AFTER_SECONDS = 2


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """Django REST framework's exception handler: `{"detail", "code"}`, or a serializer's `{"field": [...]}`."""
    known = _as_domain_error(error)
    if known is not None:
        set_rollback()
        return _response(known)
    response = exception_handler(error, context)
    if response is not None:
        _add_code(response, error)
    return response


def _as_domain_error(error: Exception) -> errors.FolkmootError | None:
    match error:
        case errors.FolkmootError():
            return error
        case OperationalError() | InterfaceError():
            return errors.Unavailable("The database is busy; try again.")
        case RequestDataTooBig() | TooManyFieldsSent() | TooManyFilesSent():
            return errors.TooLarge("the request is larger than is taken here")
        case UnreadablePostError() if _timed_out(error):
            return errors.TooSlow("the request's body did not come in time")
        case UnreadablePostError():
            return errors.IncompleteRequest("the request broke off")
        case MemoryError():
            return errors.TooLarge("the request takes more memory than this server has left")
        case RecursionError():
            return errors.InvalidInput("the request is nested too deeply")
        case OSError():
            return as_unavailable(error)
    return None


def _timed_out(error: BaseException | None) -> bool:
    # Django hides the cause behind one error or two.
    return error is not None and (isinstance(error, TimeoutError) or _timed_out(error.__cause__))


def _response(error: errors.FolkmootError) -> Response:
    kind = next((known for known in type(error).__mro__ if known in STATUS), None)
    if kind is None:
        return Response(_fault(), status=500)
    response = Response({"detail": error.message, "code": error.code}, status=STATUS[kind])
    if isinstance(error, errors.Unavailable):
        response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if isinstance(error, errors.TooSlow):
        # The rest of the body may come yet, and nobody waits for it.
        response["Connection"] = "close"
    if isinstance(error, errors.WrongOffset) and error.offset is not None:
        response["Upload-Offset"] = str(error.offset)
    return response


def unavailable(error: errors.Unavailable) -> JsonResponse:
    """The answer to a request that never came as far as a view."""
    response = JsonResponse({"detail": error.message, "code": error.code}, status=STATUS[errors.Unavailable])
    response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    response["Content-Length"] = str(len(response.content))
    response["Content-Security-Policy"] = NOTHING
    return response


def _add_code(response: Response, error: Exception) -> None:
    code = "invalid_input"
    if isinstance(error, APIException) and isinstance(error.get_codes(), str):
        code = str(error.get_codes())
    if isinstance(response.data, list):
        response.data = {"detail": " ".join(map(str, response.data))}
    if isinstance(response.data, dict) and set(response.data) == {"detail"}:
        detail = response.data["detail"]
        response.data = {"detail": detail[0] if isinstance(detail, list) else detail, "code": code}
    else:
        response["X-Error-Code"] = code


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    """What Django refuses before any view is reached: a strange Host header, a malformed query."""
    hint = "The request cannot be understood, or its Host header is not one that FOLKMOOT_ALLOWED_HOSTS names."
    return JsonResponse({"detail": hint, "code": "invalid_input"}, status=400)


def not_found(request: HttpRequest, exception: Exception) -> JsonResponse:
    return JsonResponse({"detail": "Not found.", "code": "not_found"}, status=404)


def server_error(request: HttpRequest) -> JsonResponse:
    return JsonResponse(_fault(), status=500)


def _fault() -> dict[str, str]:
    """All that is told of a fault: the log has the rest, under this id."""
    return {"detail": "A fault of the server.", "code": "internal", "request_id": request_ids.current()}
