"""The description of the API says what the API does."""

from __future__ import annotations

import inspect
import io
import runpy
from pathlib import Path

import pytest
import yaml
from api_routes import all_routes
from django.core.management import call_command
from django.db.migrations.loader import MigrationLoader
from django.urls import reverse
from jsonschema import Draft202012Validator

from folkmoot.protocol import paths

DOCS = Path(__file__).parents[2] / "docs"
ID = "00000000-0000-0000-0000-000000000001"


@pytest.fixture(scope="module")
def schema():
    out = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    return yaml.safe_load(out.getvalue())


@pytest.fixture
def operations(schema):
    methods = ("get", "put", "post", "delete", "patch")
    return {
        f"{method.upper()} {path}": operation
        for path, entry in schema["paths"].items()
        for method, operation in entry.items()
        if method in methods
    }


def test_the_schema_is_valid_and_without_warnings(schema):
    assert schema["info"]["title"] == "Folkmoot"
    assert schema["openapi"].startswith("3.1")


def test_each_operation_says_what_it_does(operations):
    assert operations
    for name, operation in operations.items():
        assert operation.get("description"), name
        assert operation["description"][0].isupper(), name


def test_each_operation_has_a_name_of_its_own(operations):
    names = [operation["operationId"] for operation in operations.values()]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("operation", "statuses"),
    [
        ("POST /api/users/", {"201"}),
        ("POST /api/tokens/", {"201"}),
        ("DELETE /api/tokens/{id}/", {"204"}),
        ("POST /api/models/", {"201"}),
        ("POST /api/models/{id}/", {"200", "201"}),
        ("POST /api/models/{id}/metrics/", {"201"}),
        ("PUT /api/models/{id}/update/", {"200", "201"}),
        ("POST /api/uploads/", {"200", "201"}),
        ("GET /api/uploads/{id}/", {"200"}),
        ("PATCH /api/uploads/{id}/", {"204"}),
        ("DELETE /api/uploads/{id}/", {"204"}),
        ("POST /api/uploads/{id}/commit/", {"200", "201"}),
        ("POST /api/trainings/", {"201"}),
        ("POST /api/trainings/{id}/start/", {"202"}),
        ("POST /api/trainings/{id}/pause/", {"202"}),
        ("POST /api/trainings/{id}/resume/", {"202"}),
        ("POST /api/trainings/{id}/stop/", {"202"}),
        ("POST /api/trainings/{id}/retry/", {"202"}),
        ("POST /api/trainings/{id}/clone/", {"201"}),
        ("PUT /api/trainings/{id}/clients/", {"202"}),
        ("POST /api/trainings/{id}/clients/", {"202"}),
        ("DELETE /api/trainings/{id}/clients/", {"200"}),
        ("DELETE /api/trainings/{id}/", {"200"}),
    ],
)
def test_the_schema_declares_the_status_that_is_sent(operations, operation, statuses):
    assert {status for status in operations[operation]["responses"] if status[0] == "2"} == statuses


def test_each_operation_has_a_summary(operations):
    for name, operation in operations.items():
        assert operation["summary"][0].isupper(), name
        assert operation["summary"][-1] not in ".:;", name


def test_every_operation_of_the_server_is_described(operations):
    routes = [each for route in all_routes() for each in route.operations]
    about_itself = {"GET /api/", "GET /api/schema/", "GET /api/schema/swagger-ui/", "GET /api/schema/redoc/"}

    assert set(operations) == {each.replace("<id>", "{id}") for each in routes} - about_itself


def test_each_operation_says_what_may_go_wrong(operations):
    for name, operation in operations.items():
        statuses = set(operation["responses"])
        assert {"503"} <= statuses or name == "GET /healthz", name
        assert "404" in statuses or "{id}" not in name, name
        assert {"400", "408", "413", "415"} <= statuses or "requestBody" not in operation, name
        assert ("401" in statuses) == bool(operation.get("security")), name


def test_each_answer_says_what_it_is(operations):
    for name, operation in operations.items():
        for status, answer in operation["responses"].items():
            assert "$ref" in answer or answer["description"], (name, status)
            for body in answer.get("content", {}).values():
                assert body["schema"].keys() & {"$ref", "items", "properties", "anyOf", "format"}, (name, status)


def test_each_error_has_an_example(schema, operations):
    answers = [answer for each in operations.values() for answer in each["responses"].items()]
    for status, answer in [*answers, *schema["components"]["responses"].items()]:
        if status[0] in "45" and "$ref" not in answer:
            assert answer["content"]["application/json"].keys() & {"example", "examples"}


def bodies(operations):
    """All bodies of requests, and those of answers that are well and JSON, each with what it belongs to."""
    for name, operation in operations.items():
        for media_type, body in operation.get("requestBody", {"content": {}})["content"].items():
            yield f"{name} {media_type}", body
        for status, answer in operation["responses"].items():
            for media_type, body in answer.get("content", {}).items():
                if status[0] == "2" and media_type == "application/json":
                    yield f"{name} {status}", body


def values_of(body):
    return [each["value"] for each in body.get("examples", {}).values()] or [body["example"]]


def test_each_body_has_an_example(operations):
    without = [name for name, body in bodies(operations) if not body.keys() & {"example", "examples"}]

    assert without == []


def test_each_example_is_as_its_schema_says(schema, operations):
    formats = Draft202012Validator.FORMAT_CHECKER
    for name, body in bodies(operations):
        whole = {"components": schema["components"], **body["schema"]}
        for value in values_of(body):
            wrong = [error.message for error in Draft202012Validator(whole, format_checker=formats).iter_errors(value)]
            assert wrong == [], name


def test_each_example_names_only_fields_that_there_are(schema, operations):
    for name, body in bodies(operations):
        for value in values_of(body):
            assert fields_in(value) <= fields_known(schema, body["schema"]), name


def fields_in(value):
    value = value[0] if isinstance(value, list) and value else value
    return set(value) if isinstance(value, dict) else set()


def fields_known(schema, part):
    if "$ref" in part:
        return fields_known(schema, schema["components"]["schemas"][part["$ref"].rpartition("/")[2]])
    within = [*part.get("anyOf", ()), *part.get("allOf", ()), *([part["items"]] if "items" in part else [])]
    return set(part.get("properties", ())).union(*(fields_known(schema, each) for each in within))


def test_the_files_of_the_documentation_are_up_to_date():
    """If not: `make schema`."""
    reference = runpy.run_path(str(DOCS / "reference.py"))
    text = reference["openapi"]()

    assert (DOCS / "openapi.yaml").read_text() == text
    assert (DOCS / "api.md").read_text() == reference["page"](yaml.safe_load(text))


@pytest.mark.django_db
@pytest.mark.parametrize("accepted", ["application/json", "application/yaml", "*/*", "text/html"])
def test_the_schema_is_open_to_everybody(anonymous, accepted):
    answer = anonymous.get("/api/schema/", headers={"Accept": accepted})

    assert answer.status_code in (200, 406)
    assert accepted == "text/html" or answer.status_code == 200


@pytest.mark.parametrize("page", ["swagger-ui", "redoc"])
def test_the_pages_bring_their_own_scripts(anonymous, page):
    text = anonymous.get(f"/api/schema/{page}/").content.decode()

    assert "/static/drf_spectacular_sidecar/" in text
    assert "cdn." not in text


PATHS = {
    "USERS": "user-list",
    "MYSELF": "user-myself",
    "MODELS": "model-list",
    "TRAININGS": "training-list",
    "NOTIFICATIONS": "notification-list",
    "INFERENCE": "inference-list",
    "API_DOCS": "swagger-ui",
    "model": "model-detail",
    "model_calibration": "model-calibration",
    "model_metrics": "model-metrics",
    "model_swag": "model-swag",
    "model_update": "model-update",
    "UPLOADS": "upload-list",
    "upload": "upload-detail",
    "upload_commit": "upload-commit",
    "training": "training-detail",
    "training_command": "training-start",
    "training_events": "training-events",
    "training_clients": "training-clients",
    "training_explain": "training-explain",
    "training_progress": "training-progress",
}


def test_every_path_of_the_protocol_is_a_route_of_the_server(anonymous):
    known = {name: value for name, value in vars(paths).items() if name[0] != "_" and name != "annotations"}

    assert {name for name in known if name != "HEALTH"} == set(PATHS)
    for name, route in PATHS.items():
        if name == "training_command":
            assert known[name]("7", "start") == reverse(route, args=["7"])
        elif inspect.isfunction(known[name]):
            assert known[name](ID) == reverse(route, kwargs={"pk": ID})
        else:
            assert known[name] == reverse(route)
    assert anonymous.get(paths.HEALTH).status_code == 200


@pytest.mark.django_db
def test_the_migrations_make_what_the_models_are():
    call_command("makemigrations", "--check", "--dry-run", stdout=io.StringIO())


def test_the_migrations_are_one_line_in_each_app():
    graph = MigrationLoader(None).graph

    for app in {app for app, _ in graph.nodes}:
        assert len(graph.leaf_nodes(app)) == 1
        in_app = [
            [parent for parent in graph.node_map[node].parents if parent.key[0] == app]
            for node in graph.nodes
            if node[0] == app
        ]
        assert all(len(parents) <= 1 for parents in in_app)


def test_the_server_passes_its_own_checks():
    call_command("check", stdout=io.StringIO())
