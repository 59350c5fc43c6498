"""The API's description as a whole: what operations share, what is outside of the framework, what follows what."""

from __future__ import annotations

from typing import Any

from folkmoot.server.api.schema import COMPONENTS, Schema

METHODS = ("get", "put", "post", "patch", "delete")
STATUS: Schema = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
CHECKS: Schema = {"checks": {"type": "object", "additionalProperties": {"type": "boolean"}}}
CHECKED: Schema = {**STATUS, "properties": STATUS["properties"] | CHECKS, "required": ["status", "checks"]}


def complete(result: Schema, generator: Any, request: Any, public: bool) -> Schema:
    """Called by drf-spectacular at the end."""
    for kind, components in COMPONENTS.items():
        result["components"].setdefault(kind, {}).update(components)
    _take_any(result)
    _link_what_is_made(result["paths"])
    result["paths"] |= {"/healthz": _healthz(), "/readyz": _readyz()}
    return result


def _take_any(part: Any) -> None:
    # A MEAN model fits the schema of a plain one, too, and a null that of any value: `oneOf` would refuse them.
    for each in part.values() if isinstance(part, dict) else part:
        if isinstance(each, dict | list):
            _take_any(each)
    if isinstance(part, dict) and isinstance(part.get("oneOf"), list):
        part["anyOf"] = part.pop("oneOf")


def _link_what_is_made(paths: Schema) -> None:
    """From each answer that has the id of something new to all that can be done with that."""
    for path, item in paths.items():
        made = item.get("post", {}).get("responses", {}).get("201")
        if made is None or "{" in path:
            continue
        name = "id" if path.split("/")[2] not in ("models", "trainings") else f"{path.split('/')[2][:-1]}_id"
        made["links"] = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {"id": f"$response.body#/{name}"},
            }
            for below, others in paths.items()
            if below.startswith(f"{path}{{id}}/")
            for method, operation in others.items()
            if method in METHODS
        }


def _healthz() -> Schema:
    """Served outside of the framework, which therefore cannot describe it."""
    answer = _answer("The process answers.", STATUS, {"status": "ok"})
    return {"get": _health("healthz", "Whether the server is alive", {"200": answer})}


def _readyz() -> Schema:
    ready = {"status": "ok", "checks": {"database": True, "storage": True}}
    unready = {"status": "unavailable", "checks": {"database": True, "storage": False}}
    answers = {
        "200": _answer("The database and the storage answer too; `degraded` if a broker does not.", CHECKED, ready),
        "503": _answer("One of them does not.", CHECKED, unready),
    }
    return {"get": _health("readyz", "Whether the server can work", answers)}


def _health(name: str, summary: str, responses: Schema) -> Schema:
    told = {"operationId": name, "summary": summary, "description": f"{summary}."}
    return told | {"tags": ["health"], "security": [], "responses": responses}


def _answer(description: str, schema: Schema, example: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema, "example": example}}}
