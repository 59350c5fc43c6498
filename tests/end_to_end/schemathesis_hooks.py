"""What schemathesis, in a process of its own, has to know of the hub: ids, and a valid request for each operation."""

from __future__ import annotations

import json
import os
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies as st

FOLDER = Path(os.environ["FOLKMOOT_DESCRIBED_WORLD"])
REQUESTS = json.loads((FOLDER / "requests.json").read_text())
ANSWERS = FOLDER / "answers.jsonl"
FILE = b64decode(REQUESTS["POST /api/models/"]["body"]["model_file"]["base64"])

FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
FILES = st.sampled_from([FILE, FILE, FILE[:-1], b""]) | st.binary(max_size=100)
schemathesis.openapi.format("binary", FILES)


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return (
            b64decode(value["base64"]) if "base64" in value else {name: _decoded(each) for name, each in value.items()}
        )
    return value


@schemathesis.hook
def before_add_examples(context: Any, examples: list[Any]) -> None:
    operation = context.operation
    request = dict(REQUESTS.get(operation.label, {}))
    if "{id}" in operation.label and "ids" not in request:
        # What ends or holds a training would leave the others' requests nothing to do.
        return
    if request.get("ids"):
        request["path_parameters"] = {"id": request["ids"][0]}
    parts = {name: request[name] for name in ("path_parameters", "query", "headers") if name in request}
    if "body" in request:
        kinds = [each.media_type for each in operation.body]
        parts |= {"body": _decoded(request["body"]), "media_type": request.get("type", kinds[0])}
    examples.insert(0, operation.Case(**parts))


@schemathesis.hook
def flatmap_path_parameters(context: Any, path_parameters: dict[str, Any]) -> Any:
    known = REQUESTS.get(context.operation.label, {}).get("ids")
    if not known:
        return st.just(path_parameters)
    return st.sampled_from(known).map(lambda each: {"id": each}) | st.just(path_parameters)


@schemathesis.hook
def flatmap_body(context: Any, body: Any) -> Any:
    request = REQUESTS.get(context.operation.label, {})
    if "body" not in request or len(context.operation.body) > 1:
        return st.just(body)
    # Else hardly anything would ever be made, and no link followed from it.
    return st.sampled_from([body, _decoded(request["body"])])


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    if case.method == "DELETE" and case.path_parameters.get("id") in REQUESTS["spared"]["ids"]:
        # By which all of these requests sign in.
        case.path_parameters["id"] = "spared"
    # Nothing will come that would be worth the wait.
    if case.operation.label == "GET /api/notifications/" and str((case.query or {}).get("wait", "")).isdigit():
        case.query["wait"] = "0"


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    return type(failure).__name__ != "AcceptedNegativeData" or not _is_as_good(case, str(failure))


def _is_as_good(case: Any, violation: str) -> bool:
    """Whether what the schema does not allow was taken for what it does, each time for a reason."""
    if case.body == _decoded(REQUESTS.get(case.operation.label, {}).get("body")):
        # Nothing is wrong with it: `flatmap_body` has put it in place of what was made up.
        return True
    found = re.search(r"in body - (\w+): (.*)", violation)
    field, wrong = found.groups() if found else ("", "")
    given = case.body.get(field) if isinstance(case.body, dict) else None
    if case.media_type in FORMS and not isinstance(case.body, dict):
        # Of what is no form nothing can be read: it is an empty one, and there nothing need be given.
        return True
    if case.media_type in FORMS:
        # All that a form has is text, and one text is a list of one. A browser sends what was left empty, too.
        return bool(given == "" or wrong == "Incorrect type")
    # Digits for a number, and a number for a text: the seed has taken both, and its clients may send them.
    return wrong == "Incorrect type" and isinstance(given, int | float | str) and not isinstance(given, bool)


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    record = {
        "operation": case.operation.label,
        "status": response.status_code,
        "method": response.request.method,
        "id": str((case.path_parameters or {}).get("id")),
        "made": _made_by(response) if response.status_code == 201 else None,
    }
    with ANSWERS.open("a") as file:
        file.write(json.dumps(record) + "\n")


def _made_by(response: Any) -> str | None:
    answer = response.json()
    return next((str(answer[name]) for name in ("id", "model_id", "training_id") if name in answer), None)
