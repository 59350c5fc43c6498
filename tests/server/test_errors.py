"""Whatever comes, the answer is JSON that says what is wrong, and never a fault of the server's own."""

from __future__ import annotations

import base64
import io
import json
from urllib.parse import urlencode

import pytest
from api_routes import all_routes
from django.db import OperationalError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folkmoot import errors
from folkmoot.server.accounts.services import create_group
from folkmoot.server.api.errors import STATUS
from folkmoot.server.uploads.services import open_upload

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(make_scene, as_):
    """A training under way, its actor's program, and the paths of everything it may see."""
    scene = make_scene()
    caller = as_(scene.actor)
    ids = {
        "user": scene.actor.pk,
        "token": scene.actor.tokens.get().pk,
        "group": create_group("hospitals", creator=scene.actor).pk,
        "model": scene.model_id,
        "training": scene.id,
        "upload": open_upload(scene.actor, target="/api/models/", fields={}, size=1)[0].pk,
    }

    def path(route):
        for name, value in ids.items():
            route = route.replace(f"<{name}>", str(value))
        return f"/api/{route}"

    caller.path = path
    caller.scene = scene
    return caller


def is_an_error(answer, status):
    """Whether this is an error as API.md has it."""
    assert answer.status_code == status, (answer.status_code, answer.content)
    assert answer["Content-Type"] == "application/json"
    assert set(answer.json()) == {"detail", "code"} or answer["X-Error-Code"]
    return True


# Addresses


@pytest.mark.parametrize("path", ["/", "/api/nothing/", "/api/models/1/nothing/", "/nothing", "/api/%00/", "/static/x"])
def test_an_unknown_address_is_not_found(anonymous, path):
    assert is_an_error(anonymous.get(path), 404)


@pytest.mark.parametrize("host", ["evil.example", "testserver.evil.example", "", "[", "a" * 300])
def test_a_strange_host_is_refused(anonymous, host):
    assert is_an_error(anonymous.get("/api/", headers={"Host": host}), 400)


def test_a_method_override_is_ignored(world):
    answer = world.get(world.path("trainings/<training>/"), headers={"X-HTTP-Method-Override": "DELETE"})

    assert answer.status_code == 200
    assert world.scene.state == "O"


# Bodies

JSON_ROUTES = [
    ("POST", "users/"),
    ("POST", "tokens/"),
    ("POST", "models/<model>/metrics/"),
    ("POST", "trainings/"),
    ("POST", "uploads/"),
    ("POST", "uploads/<upload>/commit/"),
    ("PUT", "trainings/<training>/clients/"),
    ("DELETE", "trainings/<training>/clients/"),
]


@pytest.mark.parametrize(("method", "route"), JSON_ROUTES)
@pytest.mark.parametrize(
    "body",
    [
        "{",
        "{]",
        "nonsense",
        "[]",
        "1",
        "null",
        '"text"',
        "NaN",
        '{"a": NaN}',
        '{"a": Infinity}',
        "{" * 100_000,
        "[" * 100_000,
        '{"a":' * 50 + "1" + "}" * 50,
        '{"options":' + "[" * 900 + "]" * 900 + "}",
        '{"a": ' + "9" * 5000 + "}",
        "\ufeff{}",
        b"\xff\xfe",
        b"\x00",
        b"\x1f\x8b\x08\x00",
    ],
)
def test_a_body_that_is_no_json_object_is_refused(world, method, route, body):
    answer = world.generic(method, world.path(route), body, "application/json")

    assert is_an_error(answer, 400)


@pytest.mark.parametrize(("method", "route"), JSON_ROUTES)
def test_a_body_over_the_limit_is_too_large(world, method, route, settings):
    settings.MAX_JSON_BYTES = 100

    answer = world.generic(method, world.path(route), json.dumps({"a": "x" * 100}), "application/json")

    assert is_an_error(answer, 413)
    assert answer.json()["code"] == "too_large"


@pytest.mark.parametrize("route", ["users/", "models/<model>/metrics/"])
def test_a_form_over_the_limit_is_too_large(world, route, settings):
    settings.MAX_JSON_BYTES = 100

    answer = world.generic("POST", world.path(route), "a=" + "x" * 100, "application/x-www-form-urlencoded")

    assert is_an_error(answer, 413)


def test_fields_of_a_multipart_form_over_the_limit_are_too_large(world, settings):
    settings.MAX_JSON_BYTES = 100

    assert is_an_error(world.post(world.path("models/"), {"name": "x" * 101}), 413)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart"])
def test_a_form_of_too_many_fields_is_too_large(world, kind):
    fields = {f"f{number}": "" for number in range(5000)}
    body = [urlencode(fields), kind] if kind != "multipart" else [fields]

    assert is_an_error(world.post(world.path("models/<model>/metrics/"), *body), 413)


def test_a_form_of_too_many_files_is_too_large(world):
    files = {f"f{number}": io.BytesIO(b"x") for number in range(200)}

    assert is_an_error(world.post(world.path("models/"), files), 413)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/octet-stream", "image/png", "nonsense"])
def test_a_kind_of_body_that_is_not_taken_is_told_so(world, kind):
    assert is_an_error(world.generic("POST", world.path("models/"), "x", kind), 415)


MULTIPART = [
    b"",
    b"--x",
    b"--x--",
    b"--x\r\n\r\n--x--",
    b'--x\r\nContent-Disposition: form-data; name="model_file"; filename="f"\r\n\r\nabc',
    b'--x\r\nContent-Disposition: form-data; name="model_file"; filename=""\r\n\r\nabc\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="model_file"; filename="../../etc/passwd"\r\n\r\nabc\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; filename="f"\r\n\r\nabc\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="name"\r\nContent-Transfer-Encoding: base64\r\n\r\n!\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="m"; filename="f"\r\nContent-Transfer-Encoding: base64\r\n\r\n!!\r\n',
    b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n\xff\xfe\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="a\x00"\r\n\r\n1\r\n--x--\r\n',
    b"--x\r\n" + b"A: b\r\n" * 5000 + b"\r\n\r\n--x--\r\n",
]


@pytest.mark.parametrize("body", MULTIPART)
def test_a_multipart_form_that_is_broken_is_refused_and_leaves_nothing(world, storage, body):
    answer = world.generic("POST", world.path("models/"), body, "multipart/form-data; boundary=x")

    assert is_an_error(answer, 400)
    assert list((storage.root / "incoming").iterdir()) == []


@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=\u00fc", "; boundary=" + "x" * 300])
def test_a_multipart_form_without_a_usable_boundary_is_refused(world, boundary):
    answer = world.generic("POST", world.path("models/"), b"--x--", f"multipart/form-data{boundary}")

    assert answer.status_code in (400, 415)


CHARSETS = ["utf-16", "latin-1", "utf-7", "hex", "zlib", "rot13", "base64", "idna", "punycode", "undefined", "no-such"]


@pytest.mark.parametrize("charset", CHARSETS)
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"metric_names": ["a"], "metric_values": [1]}'),
        ("application/x-www-form-urlencoded", b"metric_names=a&metric_values=%ff"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="metric_names"\r\n\r\na\xff\r\n--x--\r\n',
        ),
    ],
)
def test_a_strange_charset_is_no_fault_of_the_server(world, charset, kind, body):
    answer = world.generic("POST", world.path("models/<model>/metrics/"), body, f"{kind}; charset={charset}")

    assert answer.status_code < 500, answer.content


# Values

SURROGATE = "\ud800"
STRANGE = [
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    "",
    " ",
    "a\0b",
    SURROGATE,
    "\u202e\U0001f600",
    "nan",
    "9" * 5000,
    "x" * 100_000,
    [],
    [None],
    [[]],
    ["a\0b"],
    [SURROGATE],
    ["x"] * 2000,
    {},
    {"a": {"b": []}},
    {"a\0b": "a\0b"},
    {SURROGATE: SURROGATE},
    {"": None},
]
FIELDS = {
    "users/": [
        "username",
        "password",
        "first_name",
        "last_name",
        "email",
        "actor",
        "client",
        "message_endpoint",
    ],
    "tokens/": ["name", "expires_at"],
    "models/": [
        "name",
        "description",
        "model_file",
        "input_shape",
        "round",
        "type",
        "model_preprocessing_file",
        "models",
    ],
    "models/<model>/swag/": ["round", "sample_size", "first_moment_file", "second_moment_file"],
    "models/<model>/preprocessing/": ["model_preprocessing_file"],
    "models/<model>/": ["round", "sample_size", "model_file", "metric_names", "metric_values", "owner"],
    "models/<model>/metrics/": ["metric_names", "metric_values"],
    "trainings/": [
        "model_id",
        "target_num_updates",
        "aggregation_method",
        "metric_names",
        "uncertainty_method",
        "options",
        "clients",
    ],
    "trainings/<training>/clients/": ["clients"],
}
OPTIONS = [
    "round_timeout",
    "round_retries",
    "min_updates",
    "tests",
    "participants_may_steer",
    "local",
    "aggregation",
    "uncertainty",
    "daisy_chain_period",
    "privacy",
    "anything",
]


def good_body(world, route):
    return {
        "users/": {"username": "ada", "password": "correct horse battery"},
        "tokens/": {},
        "models/": {"name": "m", "description": "d", "type": "MEAN", "models": [str(world.scene.model_id)]},
        "models/<model>/metrics/": {"metric_names": ["a"], "metric_values": [1]},
        "trainings/": {
            "model_id": str(world.scene.model_id),
            "target_num_updates": 1,
            "aggregation_method": "FedAvg",
        },
    }.get(route, {})


def is_no_fault(answer):
    assert answer.status_code < 500, answer.content
    assert answer.json() is not None


def can_be_shown(world, route):
    """Whether all that was taken can be."""
    if route == "trainings/":
        for each in world.get(world.path(route)).json():
            is_no_fault(world.get(f"{world.path(route)}{each['id']}/"))
    if route in ("users/", "tokens/", "models/", "models/<model>/metrics/"):
        is_no_fault(world.get(world.path(route)))


@pytest.mark.parametrize(("route", "field"), [(route, field) for route, fields in FIELDS.items() for field in fields])
def test_a_strange_value_is_no_fault_of_the_server(world, route, field):
    for value in STRANGE:
        body = good_body(world, route) | {field: value}
        is_no_fault(world.send("POST", world.path(route), body))
    can_be_shown(world, route)


@pytest.mark.parametrize("option", OPTIONS)
def test_a_strange_option_is_no_fault_of_the_server(world, option):
    for value in STRANGE:
        body = good_body(world, "trainings/") | {"options": {option: value}}
        is_no_fault(world.send("POST", world.path("trainings/"), body))
    can_be_shown(world, "trainings/")


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"NaN", b"Infinity", b"9" * 5000])
def test_a_number_that_cannot_be_kept_is_refused(world, number):
    body = json.dumps(good_body(world, "trainings/") | {"options": {"mine": 0}}).encode()

    answer = world.generic(
        "POST", world.path("trainings/"), body.replace(b": 0}", b": " + number + b"}"), "application/json"
    )

    assert answer.status_code == 400, answer.content


@pytest.mark.parametrize("route", FIELDS)
def test_a_strange_field_is_no_fault_of_the_server(world, route):
    for name in ("", "a\0b", SURROGATE, "\U0001f600", "x" * 10_000, "__proto__"):
        is_no_fault(world.send("POST", world.path(route), good_body(world, route) | {name: 1}))


@pytest.mark.parametrize(("route", "field"), [(route, field) for route, fields in FIELDS.items() for field in fields])
def test_a_strange_value_in_a_form_is_no_fault_of_the_server(world, route, field):
    for value in (
        "",
        "a\0b",
        "\u202e",
        "9" * 5000,
        "nan",
        "-1",
        "1e999",
        ["a", ""],
        io.BytesIO(b"a\0b"),
        "{",
        "[null]",
    ):
        is_no_fault(world.post(world.path(route), good_body(world, route) | {field: value}))
    can_be_shown(world, route)


@pytest.mark.parametrize("expires_at", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "9999-12-31", "now"])
def test_a_strange_time_is_no_fault_of_the_server(world, expires_at):
    is_no_fault(world.send("POST", world.path("tokens/"), {"expires_at": expires_at}))
    can_be_shown(world, "tokens/")


@pytest.mark.parametrize(
    "header",
    [
        {"Authorization": "Basic " + base64.b64encode(b"a\0b:c\0d").decode()},
        {"Authorization": "Basic " + base64.b64encode("\U0001f600:x".encode()).decode()},
        {"Authorization": "Token \u00fc"},
        {"Authorization": "Token " + "a" * 5000},
        {"Cookie": "sessionid=\0; csrftoken=x"},
        {"Cookie": "sessionid=" + "x" * 5000},
        {"Accept": "nonsense"},
        {"Accept": "application/xml"},
        {"Accept-Language": "xx-\u00fc"},
        {"If-None-Match": "nonsense"},
        {"If-None-Match": '"' * 99},
        {"If-Modified-Since": "yesterday"},
        {"Range": "bytes=5-1"},
        {"Content-Length": "-1"},
        {"Content-Length": "many"},
        {"X-Content-SHA256": "\u00fc"},
        {"X-Forwarded-Host": "evil.example"},
        {"Content-Encoding": "gzip"},
    ],
)
@pytest.mark.parametrize("route", ["users/myself/", "models/<model>/", "notifications/", "trainings/"])
def test_a_strange_header_is_no_fault_of_the_server(world, header, route):
    for method in ("GET", "POST"):
        assert world.generic(method, world.path(route), headers=header).status_code < 500


@pytest.mark.parametrize(
    "query", ["?a[]=1", "?%00", "?%ff=%ff", "?" + "&" * 3000, "?round=%00", "?after=%00", "?format=api"]
)
@pytest.mark.parametrize("path", [route.path for route in all_routes() if "GET" in route.actions])
def test_a_strange_query_is_no_fault_of_the_server(make_scene, as_, path, query):
    scene = make_scene()

    assert as_(scene.actor).get(path.replace("<id>", str(scene.one_of(path))) + query).status_code < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("route", [route for route in FIELDS if route != "models/"])
def test_any_values_at_all_are_no_fault_of_the_server(world, route):
    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.dictionaries(st.sampled_from(FIELDS[route]), JSON))
    def send(fields):
        answer = world.send("POST", world.path(route), good_body(world, route) | fields)
        assert answer.status_code < 500, answer.content

    send()


# From errors to answers


def test_every_error_of_ours_has_a_status_but_those_that_are_never_an_answer():
    never = {errors.FolkmootError, errors.Internal, errors.Misconfigured, errors.AggregationFailed}
    never |= {errors.DamagedUpdate}

    for error in set(errors.BY_CODE.values()) - never:
        assert any(ancestor in STATUS for ancestor in error.__mro__), error


def test_a_database_that_is_busy_is_unavailable_for_the_moment():
    from folkmoot.server.api.errors import handle

    answer = handle(OperationalError("database is locked"), {})

    assert (answer.status_code, answer["Retry-After"]) == (503, "2")
    assert answer.data == {"detail": "The database is busy; try again.", "code": "unavailable"}
    assert "locked" not in str(answer.data)


def test_what_takes_more_memory_than_there_is_is_too_large():
    from folkmoot.server.api.errors import handle

    answer = handle(MemoryError(), {})

    assert (answer.status_code, answer.data["code"]) == (413, "too_large")
