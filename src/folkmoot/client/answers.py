"""What an answer of the hub means: the very error that the server raised."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx2

from folkmoot import errors

LONGEST_ERROR = 64 * 1024
"""Bytes of an error's body that are read; what fails may be anything, a proxy's page for example."""

BY_STATUS: dict[int, type[errors.FolkmootError]] = {
    HTTPStatus.UNAUTHORIZED: errors.NotAuthenticated,
    HTTPStatus.FORBIDDEN: errors.NotAllowed,
    HTTPStatus.NOT_FOUND: errors.NotFound,
    HTTPStatus.CONFLICT: errors.Conflict,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: errors.TooLarge,
    HTTPStatus.REQUEST_TIMEOUT: errors.Unavailable,
    HTTPStatus.TOO_MANY_REQUESTS: errors.Unavailable,
    HTTPStatus.BAD_GATEWAY: errors.Unavailable,
    HTTPStatus.SERVICE_UNAVAILABLE: errors.Unavailable,
    HTTPStatus.GATEWAY_TIMEOUT: errors.Unavailable,
    HTTPStatus.INSUFFICIENT_STORAGE: errors.StorageFull,
}


class Busy(errors.Unavailable):
    """Unavailable, and the hub said for how many seconds."""

    def __init__(self, message: str, *, retry_after: float, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class Full(Busy, errors.StorageFull):
    """No space left there, and the hub said when to look again."""


def raise_for_error(response: httpx2.Response) -> None:
    """Raise what a 4xx, a 5xx or a redirect stands for; an answer whose body is not read yet is read only then."""
    if response.has_redirect_location:
        raise errors.Misconfigured(
            f"{response.url} has moved to {response.headers['Location']}; use the address of the hub there."
        )
    if response.is_error:
        raise _error(response)


def json_object(answer: Any, path: str) -> dict[str, Any]:
    """What was answered at `path`, where only an object can come from a hub."""
    if not isinstance(answer, dict):
        raise errors.Unavailable(f"{path} was answered with something else than a JSON object")
    return answer


def _error(response: httpx2.Response) -> errors.FolkmootError:
    body = _body(response)
    code = body.get("code") if isinstance(body.get("code"), str) else response.headers.get("X-Error-Code")
    kind, message = _kind(response.status_code, code), _message(response, body)
    pause = _retry_after(response)
    if pause is not None and kind in (errors.Unavailable, errors.StorageFull):
        busy = Full if kind is errors.StorageFull else Busy
        return busy(message, retry_after=pause, code=code)
    return kind(message, code=code)


def _kind(status: int, code: str | None) -> type[errors.FolkmootError]:
    """The code decides, unless the status says what no body may contradict: who are you, or try again."""
    by_status = BY_STATUS.get(status, errors.Internal if status >= 500 else errors.InvalidInput)
    by_code = errors.BY_CODE.get(code or "", by_status)
    if issubclass(by_status, errors.NotAuthenticated | errors.Unavailable):
        return by_code if issubclass(by_code, by_status) else by_status
    return by_code


def _body(response: httpx2.Response) -> dict[str, Any]:
    """The JSON object that was sent, or nothing; at most `LONGEST_ERROR` bytes are read."""
    start = b""
    for chunk in response.iter_bytes(LONGEST_ERROR):
        start += chunk
        if len(start) >= LONGEST_ERROR:
            break
    try:
        body = json.loads(start)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _message(response: httpx2.Response, body: dict[str, Any]) -> str:
    if isinstance(body.get("detail"), str):
        return str(body["detail"])
    if fields := {field: texts for field, texts in body.items() if field != "code"}:
        return "; ".join(f"{field}: {_flat(texts)}" for field, texts in fields.items())
    return f"{response.request.method} {response.url} was answered with {response.status_code} {response.reason_phrase}"


def _flat(texts: Any) -> str:
    if isinstance(texts, list):
        return " ".join(_flat(text) for text in texts)
    if isinstance(texts, dict):
        return "; ".join(f"{key}: {_flat(text)}" for key, text in texts.items())
    return str(texts)


def _retry_after(response: httpx2.Response) -> float | None:
    """In seconds; HTTP allows a date, too."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # TypeError: a date without a zone
        return None
