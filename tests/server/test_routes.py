"""What holds for every route: HEAD with GET, OPTIONS, 405 with `Allow`, a name that reverses."""

from __future__ import annotations

from functools import cache

import pytest
from api_routes import all_routes, names
from django.urls import reverse

pytestmark = pytest.mark.django_db

ID = "00000000-0000-0000-0000-000000000001"
ROUTES = {route.path: route for route in all_routes()}
API = [path for path in ROUTES if path.startswith("/api/")]
METHODS = ("GET", "PUT", "POST", "PATCH", "DELETE", "TRACE", "PROPFIND")
REFUSED = [(path, method) for path, route in ROUTES.items() for method in METHODS if method not in route.actions]


@pytest.fixture
def scene(make_scene):
    return make_scene()


@pytest.fixture
def actor(scene, as_):
    """The program of a training's actor; `path` is a route with the id of something that is its own."""
    caller = as_(scene.actor)
    caller.path = cache(lambda route: route.replace("<id>", str(scene.one_of(route))))
    return caller


@pytest.mark.parametrize(("path", "method"), REFUSED)
def test_a_method_that_a_route_does_not_have_is_answered_with_those_it_has(actor, path, method):
    answer = actor.send(method, actor.path(path))

    assert answer.status_code == 405
    assert set(answer["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == set(ROUTES[path].actions)
    assert answer.json() == {"detail": f'Method "{method}" not allowed.', "code": "method_not_allowed"}


@pytest.mark.parametrize("path", [path for path, route in ROUTES.items() if "GET" in route.actions])
def test_head_is_get_without_the_body(actor, path):
    full, head = actor.get(actor.path(path)), actor.head(actor.path(path))

    assert (head.status_code, head.getvalue()) == (full.status_code, b"")
    assert head["Content-Type"] == full["Content-Type"]


@pytest.mark.parametrize("path", API)
def test_options_says_what_a_route_is_and_takes(actor, path):
    answer = actor.options(actor.path(path))

    assert answer.status_code == 200
    assert answer.json().keys() >= {"name", "description", "renders", "parses"}
    assert answer.json()["description"]
    assert set(answer["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == set(ROUTES[path].actions)


@pytest.mark.parametrize("path", [path for path in API if path != "/api/"])
def test_a_missing_slash_redirects(actor, path):
    answer = actor.get(actor.path(path).rstrip("/"))

    assert answer.status_code == 301
    assert answer["Location"] == actor.path(path)


def test_every_name_of_a_route_reverses():
    found = dict(names())

    assert {"training-start", "training-models-latest", "model-metrics", "user-myself", "group-members"} <= set(found)
    for name, path in found.items():
        assert reverse(name, kwargs={"pk": ID} if "<id>" in path else None) == path.replace("<id>", ID)


def test_every_viewset_action_has_a_route_with_a_name_of_its_own():
    found = [name for name, _ in names()]

    assert len(found) == len(set(found))
