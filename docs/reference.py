"""Writes openapi.yaml and api.md, both from what the server says of itself: `make schema`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Schema = dict[str, Any]
FOLDER = Path(__file__).parent
METHODS = ("get", "post", "put", "patch", "delete")
INTRODUCTION = """\
# The REST API

Everything below `/api/`, and the two addresses that tell a hub's health. This page is made from
[openapi.yaml](openapi.yaml), and that from the code; every hub shows the same at `/api/schema/swagger-ui/`, where
requests can be sent, and at `/api/schema/redoc/`. Who may do what has a [page of its own](permissions.md).

Sign in with `Authorization: Token <40 hex digits>` or `Bearer`, or by HTTP Basic with user name and password, or with
the token as user name and no password. Ids are UUIDs, those of groups integers; times are ISO 8601 with their offset.
HEAD is answered wherever GET is, OPTIONS everywhere. Lists are plain arrays: whole without `limit`, with it at most
1,000 rows.

An error is `{"detail": "...", "code": "..."}`: a sentence for people, and a code that stays what it is. What is wrong
with fields is `{"<field>": ["..."]}`, with the code in the header `X-Error-Code`. These mean the same everywhere:
"""


def openapi() -> str:
    """The schema as YAML; Django has to be set up."""
    from drf_spectacular.generators import SchemaGenerator
    from drf_spectacular.renderers import OpenApiYamlRenderer

    schema = SchemaGenerator().get_schema(request=None, public=True)
    return OpenApiYamlRenderer().render(schema, renderer_context={}).decode()


def page(schema: Schema) -> str:
    """The schema as Markdown."""
    shared = schema["components"]["responses"]
    parts = [INTRODUCTION, *_table(("status", "when", "for example"), _answers(shared))]
    for tag in dict.fromkeys(operation["tags"][0] for *_, operation in _operations(schema)):
        parts.append(f"\n## {tag.capitalize()}")
        for method, path, operation in _operations(schema):
            if operation["tags"][0] == tag:
                parts += _operation(schema, f"{method.upper()} {path.replace('{id}', '<id>')}", operation)
    parts.append("\n## What answers are made of")
    for name in sorted(_answered(schema)):
        whole = schema["components"]["schemas"][name]
        parts += [
            f"\n### {name}\n\n{whole.get('description', '')}\n",
            *_table(("field", "is", ""), _fields(schema, {**whole, "required": ()})),
        ]
    return "\n".join(parts) + "\n"


def _answered(schema: Schema) -> set[str]:
    """Names of the objects that answers have in them, at whatever depth."""
    found: set[str] = set()
    answers = [answer for *_, operation in _operations(schema) for answer in operation["responses"].values()]
    waiting = _references(answers)
    while waiting:
        name = waiting.pop()
        component = schema["components"]["schemas"].get(name, {})
        if "properties" in component:
            found.add(name)
        waiting |= _references(component) - found
    return found


def _references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"].rpartition("/")[2]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*map(_references, part.values()))
    return set().union(*map(_references, part)) if isinstance(part, list) else set()


def _operations(schema: Schema) -> Iterator[tuple[str, str, Schema]]:
    for path, item in schema["paths"].items():
        for method in METHODS:
            if method in item:
                yield method, path, item[method]


def _operation(schema: Schema, title: str, operation: Schema) -> Iterator[str]:
    yield f"\n### `{title}`\n\n{operation['description']}"
    parameters = [each for each in operation.get("parameters", ()) if each["in"] != "path"]
    if parameters:
        yield ""
        yield from _table(("parameter", "in", "is", ""), (_parameter(each) for each in parameters))
    yield from _bodies(schema, operation.get("requestBody", {"content": {}})["content"])
    own = {status: answer for status, answer in operation["responses"].items() if "$ref" not in answer}
    yield ""
    yield from _table(("status", "is", "for example"), _answers(own, schema))
    also = [status for status in operation["responses"] if status not in own]
    if also:
        yield f"\nAlso {', '.join(also)}."


def _bodies(schema: Schema, content: Schema) -> Iterator[str]:
    kinds: dict[str, tuple[list[str], list[tuple[str, ...]]]] = {}
    for media_type, body in content.items():
        kinds.setdefault(str(body["schema"]), ([], _fields(schema, body["schema"])))[0].append(f"`{media_type}`")
    for media_types, fields in kinds.values():
        yield f"\nBody, {' or '.join(media_types)}:" if fields else f"\nBody, {media_types[0]}: the bytes of the file."
        if fields:
            yield ""
            yield from _table(("field", "is", ""), fields)


def _parameter(parameter: Schema) -> tuple[str, ...]:
    meaning = parameter.get("description", "")
    return f"`{parameter['name']}`", parameter["in"], _type(parameter["schema"]), _required(parameter, meaning)


def _fields(schema: Schema, of: Schema) -> list[tuple[str, ...]]:
    whole = _resolved(schema, of)
    required = whole.get("required", ())
    return [
        (
            f"`{name}`",
            _type(_resolved(schema, field)),
            _required({"required": name in required}, field.get("description", "")),
        )
        for name, field in whole.get("properties", {}).items()
    ]


def _required(thing: Schema, meaning: str) -> str:
    return f"{meaning} (required)".strip() if thing.get("required") else meaning


def _answers(responses: Schema, schema: Schema | None = None) -> Iterator[tuple[str, ...]]:
    for status, answer in responses.items():
        body = next(iter(answer.get("content", {}).values()), {})
        examples = [each["value"] for each in body.get("examples", {}).values()] or [body.get("example", {})]
        is_made_of = f": {_made_of(schema, body['schema'])}" if schema and body and status[0] == "2" else ""
        if is_made_of:
            # Whole objects would fill the page; they are in openapi.yaml.
            examples = [each for each in examples if isinstance(each, dict) and "detail" in each]
        shown = "; ".join(f"`{_sentence(each)}`" for each in examples if each)
        yield status, answer["description"].rstrip("." if is_made_of else "") + is_made_of, shown


def _made_of(schema: Schema, part: Schema) -> str:
    whole = _resolved(schema, part)
    if whole.get("type") == "array":
        return f"list of {_made_of(schema, whole['items'])}"
    if "anyOf" in whole:
        return " or ".join(_made_of(schema, each) for each in whole["anyOf"])
    name = part.get("$ref", "").rpartition("/")[2]
    if name:
        return f"[{name}](#{name.lower()})"
    return ", ".join(f"`{name}`" for name in whole.get("properties", ())) or "the bytes of the file"


def _sentence(example: Schema) -> str:
    return str(example.get("detail") or json.dumps(example))


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if kinds := schema.get("oneOf") or schema.get("anyOf") or schema.get("allOf"):
        return " or ".join(dict.fromkeys(_type(each) for each in kinds))
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    kinds = schema.get("type", "anything")
    name = " or ".join(kinds) if isinstance(kinds, list) else kinds
    if name == "array":
        return f"list of {_type(schema['items'])}"
    return f"{name} ({schema['format']})" if "format" in schema else name


def _resolved(schema: Schema, part: Schema) -> Schema:
    if "allOf" in part:
        part = part["allOf"][0]
    return schema["components"]["schemas"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> Iterator[str]:
    yield _row(head)
    yield _row(("---",) * len(head))
    yield from map(_row, rows)


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"


def _set_up_django() -> None:
    # What the schema says must not follow from how this machine is set up.
    for name in [name for name in os.environ if name.startswith("FOLKMOOT_")]:
        del os.environ[name]
    here = {"FOLKMOOT_DATA_DIR": "/nonexistent", "FOLKMOOT_SECRET_KEY": "of no account"}
    os.environ |= {"DJANGO_SETTINGS_MODULE": "folkmoot.server.settings", **here}
    import django

    django.setup()


def main() -> None:
    import yaml

    _set_up_django()
    text = openapi()
    (FOLDER / "openapi.yaml").write_text(text)
    (FOLDER / "api.md").write_text(page(yaml.safe_load(text)))


if __name__ == "__main__":
    main()
