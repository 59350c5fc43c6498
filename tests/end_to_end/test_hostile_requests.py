"""U19 and A18: names that are more than text, and requests that two readers would understand in two ways."""

from __future__ import annotations

import base64

import pytest
from harness import as_file, initial_model

NAMES = [
    "<script>alert(1)</script>",
    "'; DROP TABLE registry_model; --",
    "{{ 7 * 7 }} ${7*7} %s %(x)s {0}",
    "../../etc/passwd",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
    "\N{GRINNING FACE}" * 255,
]


def upload(hub, *, name="a model", filename="model.pt"):
    form, files = {"name": name, "description": name}, {"model_file": (filename, as_file(initial_model()))}
    return hub.call(hub.actor, "POST", "/api/models/", data=form, files=files)


@pytest.mark.parametrize("name", NAMES)
def test_any_line_of_text_may_be_a_models_name_and_comes_back_as_data(hub, name):
    model = upload(hub, name=name).json()["model_id"]

    answer = hub.call(hub.actor, "GET", f"/api/models/{model}/metadata/")

    assert answer.json()["name"] == name
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ["a\0b", "a\r\nSet-Cookie: b", "\x1b[2Ja", "a\x7fb", "a\x9bb"])
def test_control_characters_are_no_part_of_a_name(hub, name):
    answer = upload(hub, name=name)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_value")


@pytest.mark.parametrize(
    "filename", ["../../../../tmp/evil", "/etc/passwd", 'a"; filename="b', "a\r\nb", "a\0b", "con"]
)
def test_the_name_of_a_file_decides_nothing(hub, filename):
    answer = upload(hub, filename=filename)

    assert answer.status_code == 201
    model = answer.json()["model_id"]
    disposition = hub.call(hub.actor, "GET", f"/api/models/{model}/").headers["Content-Disposition"]
    assert disposition == f'attachment; filename="model-{model}.pt"'


@pytest.mark.parametrize(
    "body",
    [
        b'{"model_id": "x", "model_id": "y"}',
        b'{"model_id": "x", "model\\u005fid": "y"}',
        b'{"options": {"a": 1, "b": {"c": 1, "c": 1}}}',
    ],
)
def test_a_key_twice_in_one_object_is_refused(hub, body):
    answer = hub.call(hub.actor, "POST", "/api/trainings/", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert answer.json() == {"detail": "the body has a key twice in one object", "code": "invalid_input"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_the_probes_are_only_read(hub, path, method):
    answer = hub.call(None, method, path)

    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("backend", ["sqlite", "postgres"], indirect=True)
def test_nul_in_credentials_is_no_user(world, backend):
    world.server.start()

    for credentials in (b"a\0b:password", b"ann:a\0b", b"\0:\0", b"\0:"):
        header = {"Authorization": "Basic " + base64.b64encode(credentials).decode()}
        assert world.call(None, "GET", "/api/users/myself/", headers=header).status_code == 401
