"""The API as pages: for a browser that has signed in, with forms that work; every program gets JSON."""

from __future__ import annotations

import json
import re
from io import BytesIO

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from folkmoot.server.accounts.models import User
from folkmoot.server.accounts.services import create_group
from folkmoot.server.uploads.services import open_upload

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery staple"
AS_BROWSERS_DO = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class Browser(Client):
    """Asks for pages, and sends forms as the page's own script does: with the token that the page holds."""

    def __init__(self, user):
        super().__init__(enforce_csrf_checks=True, raise_request_exception=False, headers={"Accept": AS_BROWSERS_DO})
        self.force_login(user)

    def submit(self, method, path, fields=None):
        return self._send(method, path, encode_multipart(BOUNDARY, fields or {}), MULTIPART_CONTENT)

    def submit_raw(self, method, path, content):
        """The form with one field for the whole of the body, of the type that it offers first."""
        kind = re.search(r'name="_content_type"[^>]*>\s*<option value="([^"]+)" selected', self.get(path).text)[1]
        return self._send(method, path, content, kind)

    def _send(self, method, path, body, kind):
        token = re.search(r'"csrfToken": "(\w+)"', self.get(path).text)[1]
        return self.generic(method, path, body, kind, headers={"X-CSRFToken": token})


@pytest.fixture
def ada(make_user):
    return make_user("ada", is_staff=True, password=PASSWORD)


@pytest.fixture
def browser(ada):
    return Browser(ada)


def is_page(answer):
    return answer["Content-Type"] == "text/html; charset=utf-8"


# Who gets pages


def test_a_browser_that_has_signed_in_gets_pages(browser):
    answer = browser.get("/api/")

    assert (answer.status_code, is_page(answer)) == (200, True)
    assert "ada" in answer.text


@pytest.mark.parametrize("accepted", ["*/*", "application/json", "application/json, text/html;q=0.5", ""])
def test_a_browser_that_asks_for_json_gets_json(browser, accepted):
    assert browser.get("/api/users/", headers={"Accept": accepted})["Content-Type"] == "application/json"


def test_a_program_gets_json_whatever_it_accepts(as_, ada):
    answer = as_(ada).get("/api/users/myself/", headers={"Accept": AS_BROWSERS_DO})

    assert answer.json()["username"] == "ada"


def test_a_program_that_takes_nothing_but_pages_is_told_that_there_are_none(as_, ada):
    answer = as_(ada).get("/api/users/myself/", headers={"Accept": "text/html"})

    assert answer.status_code == 406
    assert answer.json()["code"] == "not_acceptable"


def test_whoever_has_not_signed_in_gets_json(anonymous):
    answer = anonymous.get("/api/users/", headers={"Accept": AS_BROWSERS_DO})

    assert answer.status_code == 401
    assert answer.json()["code"] == "not_authenticated"


def test_a_program_with_a_token_gets_json_in_a_session_too(browser, ada, as_):
    token = as_(ada).send("POST", "/api/tokens/", {}).json()["token"]

    answer = browser.get("/api/users/myself/", headers={"Authorization": f"Token {token}"})

    assert answer.json()["username"] == "ada"


# What the pages are


@pytest.fixture
def paths(ada, make_scene, make_user):
    """One of each route that a browser can open, methods that GET is not one of included."""
    scene = make_scene(actor=ada)
    ids = {
        "users": ada.pk,
        "groups": create_group("hospitals", creator=ada).pk,
        "tokens": ada.tokens.create(digest="0" * 64, prefix="0" * 8).pk,
        "models": scene.model_id,
        "trainings": scene.id,
        "uploads": open_upload(ada, target="/api/models/", fields={}, size=1)[0].pk,
    }
    own = {
        "users": ["password"],
        "groups": ["members"],
        "models": ["metadata", "checkpoints", "lineage", "metrics", "update", "preprocessing"],
        "trainings": ["start", "clients", "models", "models/latest"],
        "uploads": ["commit"],
    }
    lists = ["", "users/myself/", "users/groups/", "users/trainings/", "notifications/", *(f"{name}/" for name in ids)]
    details = [f"{name}/{pk}/" for name, pk in ids.items() if name != "models"]
    return [*lists, *details, *(f"{name}/{ids[name]}/{each}/" for name in own for each in own[name])]


def test_each_route_has_its_page(browser, paths):
    for path in paths:
        answer = browser.get(f"/api/{path}")
        assert answer.status_code in (200, 404, 405), path
        assert is_page(answer), path


def test_a_list_is_shown_in_pages(browser, ada):
    User.objects.bulk_create(User(username=f"user-{number}") for number in range(150))

    answer = browser.get("/api/users/")

    assert answer["X-Total-Count"] == "151"
    assert answer.text.count("&quot;id&quot;") == 100


def test_a_page_runs_only_scripts_of_this_server(browser, paths):
    for path in paths:
        answer = browser.get(f"/api/{path}")
        policy = answer["Content-Security-Policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "<style>" not in answer.text
        assert not re.findall(r"<script(?![^>]*(?:src=\"/static/|type=\"application/json\"))[^>]*>", answer.text)
        for address in re.findall(r'(?:src|href)="([^"#]+\.(?:js|css|png))"', answer.text):
            assert address.startswith("/static/")


def test_what_a_page_loads_is_there(browser):
    for address in set(re.findall(r'(?:src|href)="(/static/[^"]+)"', browser.get("/api/").text)):
        assert browser.get(address).status_code == 200


def test_json_still_may_do_nothing(browser):
    answer = browser.get("/api/users/", headers={"Accept": "*/*"})

    assert answer["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_the_page_to_sign_in_runs_only_scripts_of_this_server(anonymous):
    answer = anonymous.get("/api-auth/login/")

    assert answer.status_code == 200
    assert "script-src 'self';" in answer["Content-Security-Policy"]


def test_a_name_that_is_markup_is_shown_as_text(browser, ada):
    ada.first_name = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    ada.save()

    text = browser.get("/api/users/myself/").text

    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text


# Forms


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("users/", ["username", "password", "email", "actor", "message_endpoint"]),
        ("groups/", ["name"]),
        ("tokens/", ["name", "expires_at"]),
        ("models/", ["name", "description", "model_file", "round"]),
    ],
)
def test_a_page_has_a_form_for_what_can_be_made(browser, path, fields):
    text = browser.get(f"/api/{path}").text

    for field in fields:
        assert f'name="{field}"' in text
    assert 'type="text" value="" name="password"' not in text


def test_the_form_of_a_group_makes_one(browser):
    answer = browser.submit("POST", "/api/groups/", {"name": "hospitals"})

    assert (answer.status_code, is_page(answer)) == (201, True)
    assert Group.objects.get().name == "hospitals"


def test_a_form_that_is_filled_in_wrongly_says_where(browser):
    answer = browser.submit("POST", "/api/groups/", {"name": ""})

    assert answer.status_code == 400
    assert "This field may not be blank." in answer.text


def test_the_form_of_a_group_renames_it(browser, ada):
    group = create_group("hospitals", creator=ada)
    page = browser.get(f"/api/groups/{group.pk}/").text

    assert 'value="hospitals"' in page
    assert browser.submit("PUT", f"/api/groups/{group.pk}/", {"name": "clinics"}).status_code == 200
    assert Group.objects.get().name == "clinics"
    browser.submit("DELETE", f"/api/groups/{group.pk}/")
    assert not Group.objects.exists()


def test_the_form_of_a_password_sets_it(browser, ada):
    path = f"/api/users/{ada.pk}/password/"
    page = browser.get(path).text

    assert re.search(r'name="current_password"[^>]*type="password"|type="password"[^>]*name="current_password"', page)
    fields = {"password": "another", "current_password": PASSWORD}
    browser.submit("PUT", path, fields)
    assert User.objects.get(username="ada").check_password("another")


def test_the_form_of_users_registers_one(browser):
    answer = browser.submit("POST", "/api/users/", {"username": "bob", "password": PASSWORD, "client": "true"})

    assert answer.status_code == 201
    assert "&quot;token&quot;: &quot;" in answer.text
    assert User.objects.get(username="bob").tokens.count() == 1


def test_the_form_of_tokens_makes_one(browser, ada):
    assert browser.submit("POST", "/api/tokens/", {"name": "laptop"}).status_code == 201
    assert ada.tokens.get().name == "laptop"


def test_the_form_of_models_takes_a_file(browser, ada, tensors_file):
    file = BytesIO(tensors_file(w=[1, 2]))
    file.name = "m.safetensors"

    answer = browser.submit("POST", "/api/models/", {"name": "m", "description": "d", "model_file": file})

    assert answer.status_code == 201
    assert ada.models.get().name == "m"


def test_the_form_of_a_training_starts_it(browser, ada, make_training):
    training = make_training(ada)
    path = f"/api/trainings/{training.pk}/start/"

    assert "Open the first round" in browser.get(path).text
    assert browser.submit_raw("POST", path, "{}").status_code == 202


def test_the_form_of_participants_adds_one(browser, ada, make_training, make_user):
    training, user = make_training(ada), make_user()
    path = f"/api/trainings/{training.pk}/clients/"

    assert "&quot;clients&quot;: []" in browser.get(path).text
    assert browser.submit_raw("PUT", path, json.dumps({"clients": [str(user.pk)]})).status_code == 202
    assert training.has_participant(user)


def test_a_form_without_the_token_of_its_page_changes_nothing(browser):
    answer = browser.post("/api/groups/", {"name": "hospitals"})

    assert answer.status_code == 403
    assert not Group.objects.exists()
