"""The API as pages: for a browser that has signed in, with forms that work; every program gets JSON."""

from __future__ import annotations

import re
from io import BytesIO

import pytest
from api_routes import all_routes
from django.contrib.auth.models import Group
from pages import AS_BROWSERS_DO, Browser, fields_of
from questions import Questions
from valid_requests import is_done, prepare, request_for

from folkmoot.server.accounts.models import User
from folkmoot.server.accounts.services import create_group
from folkmoot.server.api.router import router

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery staple"


FILES = ("/api/models/<id>/",)
BYTES_ALONE = ("PUT /api/models/<id>/update/", "PATCH /api/uploads/<id>/")
PAGES = [each for each in all_routes() if each.path.startswith("/api/") and "schema" not in each.path]
WRITING = [each for page in PAGES for each in page.operations if each.split(" ")[0] in ("POST", "PUT", "PATCH")]
WITH_FORMS = [each for each in WRITING if each not in BYTES_ALONE]


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
def hub(ada, make_scene, make_user, browser):
    """One of everything, all of it ada's, who takes part in her own training as well."""
    scene = make_scene(actor=ada, participants=[ada, make_user()])
    return Questions(scene, {"owner": ada, "participant": ada}, {"owner": browser})


@pytest.fixture
def paths(hub):
    """One of each route that a browser can open, methods that GET is not one of included."""
    shown = [each for each in PAGES if each.path not in FILES]
    detail = {each.resource: each.path for each in shown if "<id>" in each.path}
    ids = {resource: hub.thing_of(path).pk for resource, path in detail.items()}
    return [each.path.replace("<id>", str(ids.get(each.resource))) for each in shown]


def address(hub, path, operation=""):
    if "<id>" not in path:
        return path
    thing = hub.thing_of(path)
    prepare(operation, thing)
    return path.replace("<id>", str(thing.pk))


def test_each_route_has_its_page(browser, paths):
    for path in paths:
        answer = browser.get(path)
        assert answer.status_code in (200, 404, 405), path
        assert is_page(answer), path


EXTRA_ACTIONS = {
    "user": ["My groups", "Myself", "Password", "My trainings"],
    "group": ["Members"],
    "model": [
        "Calibration",
        "Checkpoints",
        "Lineage",
        "Metadata",
        "Metrics",
        "Preprocessing",
        "Update",
        "SWAG statistic",
    ],
    "upload": ["Commit"],
    "training": [
        "Clients",
        "Clone",
        "Events",
        "Explain",
        "Latest models",
        "Manifest",
        "Models",
        "Participants",
        "Pause",
        "Progress",
        "Resume",
        "Retry",
        "Rounds",
        "Start",
        "Stop",
        "Updates",
    ],
}


def test_the_names_of_extra_actions_read_well_in_their_menu():
    """A new one is written down here once somebody has looked at it."""
    named = {
        basename: [each.kwargs["name"] for each in viewset.get_extra_actions()]
        for _, viewset, basename in router.registry
        if viewset.get_extra_actions()
    }

    assert named == EXTRA_ACTIONS


def test_each_extra_action_says_what_it_does_by_each_method():
    for _, viewset, _ in router.registry:
        for action in viewset.get_extra_actions():
            for name in action.mapping.values():
                assert getattr(viewset, name).__doc__, name


def test_a_page_has_the_menu_of_extra_actions(browser, hub):
    text = browser.get(f"/api/models/{hub.scene.model_id}/metadata/").text

    assert all(f">{name}</a>" in text for name in EXTRA_ACTIONS["model"])


def test_a_list_is_shown_in_pages(browser, ada):
    User.objects.bulk_create(User(username=f"user-{number}") for number in range(150))

    answer = browser.get("/api/users/")

    assert answer["X-Total-Count"] == "151"
    assert answer.text.count("&quot;id&quot;") == 100


def test_a_page_runs_only_scripts_of_this_server(browser, paths):
    for path in paths:
        answer = browser.get(path)
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


@pytest.mark.parametrize("operation", WITH_FORMS)
def test_the_form_of_each_page_can_be_filled_in_and_sent(hub, browser, ada, operation):
    method, path = operation.split(" ")
    path = address(hub, path, operation)
    wanted = fields_of(request_for(operation, scene=hub.scene, owner=ada))
    if "password" in path:
        wanted["current_password"] = PASSWORD
    form = browser.form(method, path)

    assert wanted.keys() <= form.fields.keys() or not form.fields
    answer = browser.send(method, path, form, wanted)

    assert is_done(answer.status_code), answer.text
    assert is_page(answer)


@pytest.mark.parametrize("operation", WITH_FORMS)
def test_a_form_for_json_begins_without_what_would_be_refused(hub, browser, operation):
    method, path = operation.split(" ")

    assert "null" not in browser.form(method, address(hub, path, operation)).text


@pytest.mark.parametrize("operation", BYTES_ALONE)
def test_what_takes_bytes_alone_has_no_form(hub, browser, operation):
    method, path = operation.split(" ")

    assert browser.form(method, address(hub, path)) is None


def test_a_page_takes_a_list_as_one_text(browser, ada, tensors_file):
    form = browser.form("POST", "/api/models/")
    wanted = {"name": "m", "description": "d", "input_shape": "None, 1,28 28", "model_file": tensors_file(w=[1])}

    assert browser.send("POST", "/api/models/", form, wanted).status_code == 201
    assert ada.models.get().input_shape == [None, 1, 28, 28]


@pytest.mark.parametrize(("kind", "shown"), [("GLOBAL", "GLOBAL"), ("SWAG", "SWAG")])
def test_the_form_of_models_makes_each_kind_that_has_a_file(browser, ada, tensors_file, kind, shown):
    form = browser.form("POST", "/api/models/")
    wanted = {"name": "m", "description": "d", "type": kind, "model_file": tensors_file(w=[1])}

    assert browser.send("POST", "/api/models/", form, wanted).status_code == 201
    assert ada.models.get().type == shown


def test_the_form_for_json_makes_a_model_of_models(browser, ada, make_model):
    form = browser.form("POST", "/api/models/")
    wanted = {"type": "MEAN", "name": "m", "description": "d", "models": [str(make_model(ada).pk)] * 1}

    assert browser.send_text("POST", "/api/models/", form, wanted).status_code == 201
    assert ada.models.filter(type="MEAN").count() == 1


def test_the_form_of_trainings_takes_options_and_users(browser, ada, make_model, make_user):
    form = browser.form("POST", "/api/trainings/")
    users = [str(make_user().pk) for _ in range(2)]
    wanted = {
        "model_id": str(make_model(ada).pk),
        "aggregation_method": "FedAvg",
        "options": '{"round_timeout": 60}',
        "clients": ", ".join(users),
    }

    assert browser.send("POST", "/api/trainings/", form, wanted).status_code == 201
    training = ada.steered_trainings.get()
    assert training.options == {"round_timeout": 60}
    assert training.participants.count() == 2


def test_a_password_is_not_shown_while_it_is_typed(browser):
    assert 'type="text" value="" name="password"' not in browser.get("/api/users/").text


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


def test_a_form_without_the_token_of_its_page_changes_nothing(browser):
    answer = browser.post("/api/groups/", {"name": "hospitals"})

    assert answer.status_code == 403
    assert not Group.objects.exists()
