"""Django's admin: for staff, and nothing there changes what has consequences elsewhere."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest
from django.contrib.auth.models import Group, Permission
from django.test import Client
from django.urls import Resolver404, clear_url_caches, resolve

from folkmoot.server import urls
from folkmoot.server.accounts.models import User
from folkmoot.server.registry.models import Model
from folkmoot.server.trainings.models import Training

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery staple"


@pytest.fixture
def browser():
    def sign_in(user):
        client = Client(raise_request_exception=False)
        client.force_login(user)
        return client

    return sign_in


@pytest.fixture
def root(make_user, browser):
    """A superuser's browser."""
    return browser(make_user("root", is_staff=True, is_superuser=True))


@pytest.fixture
def make_staff(make_user):
    """A function: someone of the staff who may do these things in the admin."""

    def make(*permissions):
        user = make_user(is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        return user

    return make


def page_of(thing, action="change"):
    meta = thing._meta
    return f"/admin/{meta.app_label}/{meta.model_name}/{thing.pk}/{action}/"


def form_of(user, **changed):
    """What the page of a user sends, with these changes."""
    fields = {"username": user.username, "email": user.email, "first_name": "", "last_name": ""}
    fields |= {name: "on" for name in ("is_active", "is_staff", "is_superuser") if getattr(user, name)}
    return {name: value for name, value in (fields | changed).items() if value is not None}


# Getting in


def test_staff_signs_in_with_a_password(make_user):
    make_user("root", is_staff=True, is_superuser=True, password=PASSWORD)
    client = Client()

    answer = client.post("/admin/login/?next=/admin/", {"username": "root", "password": PASSWORD})

    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
    assert client.get("/admin/").status_code == 200


@pytest.mark.parametrize("who", ["nobody", "user"])
def test_nobody_else_gets_in(make_user, browser, who):
    client = browser(make_user()) if who == "user" else Client()

    for path in ("/admin/", "/admin/accounts/user/", "/admin/trainings/training/"):
        answer = client.get(path)
        assert (answer.status_code, answer["Location"]) == (302, f"/admin/login/?next={path}")


def test_a_token_is_no_way_in(make_user, as_):
    assert as_(make_user(is_staff=True, is_superuser=True)).get("/admin/").status_code == 302


def test_signing_in_takes_a_csrf_token(make_user):
    make_user("root", is_staff=True, password=PASSWORD)

    answer = Client(enforce_csrf_checks=True).post("/admin/login/", {"username": "root", "password": PASSWORD})

    assert answer.status_code == 403


def test_staff_sees_what_it_was_given_alone(make_staff, make_training, browser):
    training = make_training()
    client = browser(make_staff("view_training"))

    assert client.get("/admin/trainings/training/").status_code == 200
    assert client.get(page_of(training)).status_code == 200
    assert client.get(page_of(training.model)).status_code == 403
    assert client.get("/admin/accounts/user/").status_code == 403


# Pages


@pytest.mark.parametrize(
    "path",
    [
        "",
        "accounts/user/",
        "accounts/user/?q=ada",
        "accounts/user/add/",
        "auth/group/",
        "auth/group/add/",
        "registry/model/",
        "registry/model/?q=m",
        "trainings/training/",
        "trainings/training/?q=m&state=I",
    ],
)
def test_each_page_is_shown(root, make_training, path):
    make_training()

    answer = root.get(f"/admin/{path}")

    assert answer.status_code == 200
    assert answer["Content-Type"] == "text/html; charset=utf-8"


def test_each_thing_has_its_page(root, make_training):
    training = make_training()

    for thing in (training, training.model, training.actor, Group.objects.create(name="hospitals")):
        assert root.get(page_of(thing)).status_code == 200
        assert root.get(page_of(thing, "history")).status_code == 200


def test_a_page_runs_only_scripts_of_this_server(root):
    for path in ("/admin/", "/admin/login/", "/admin/accounts/user/add/"):
        answer = root.get(path)
        policy = answer["Content-Security-Policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer["X-Frame-Options"] == "DENY"
        assert "<script>" not in answer.text


@pytest.mark.parametrize("path", ["admin/css/base.css", "admin/js/core.js", "rest_framework/css/default.css"])
def test_styles_and_scripts_come_from_this_server(path):
    assert Client().get(f"/static/{path}").status_code == 200


# What can be done there


def test_nothing_about_a_training_is_changed_there(root, make_training):
    training = make_training()
    before = Training.objects.values().get()

    shown = root.get(page_of(training)).text
    changed = root.post(page_of(training), {"state": "C", "reason": "because", "target_num_updates": 99})
    deleted = root.post(page_of(training, "delete"), {"post": "yes"})
    added = root.get("/admin/trainings/training/add/")
    together = {"action": "delete_selected", "_selected_action": [str(training.pk)], "post": "yes"}
    root.post("/admin/trainings/training/", together)

    assert 'name="state"' not in shown
    assert (changed.status_code, deleted.status_code, added.status_code) == (403, 403, 403)
    assert Training.objects.values().get() == before


def test_a_model_is_named_there_and_nothing_else(root, make_model, make_user):
    model = make_model()
    before = Model.objects.values().get()

    answer = root.post(
        page_of(model),
        {"name": "named", "description": "new", "round": 7, "template_sha256": "0" * 64, "owner": str(make_user().pk)},
    )

    assert answer.status_code == 302
    assert Model.objects.values().get() == before | {"name": "named", "description": "new"}


def test_models_come_and_go_by_the_api_alone(root, make_model):
    model = make_model()
    together = {"action": "delete_selected", "_selected_action": [str(model.pk)], "post": "yes"}

    assert root.get("/admin/registry/model/add/").status_code == 403
    assert root.post(page_of(model, "delete"), {"post": "yes"}).status_code == 403
    root.post("/admin/registry/model/", together)
    assert Model.objects.exists()


def test_a_user_is_made_there_with_a_password(root):
    fields = {"username": "ada", "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}

    assert root.post("/admin/accounts/user/add/", fields).status_code == 302
    assert User.objects.get(username="ada").check_password(PASSWORD)


def test_a_user_is_switched_off_there_and_not_deleted(root, make_user, as_):
    user = make_user("ada")
    caller = as_(user)

    assert root.post(page_of(user), form_of(user, is_active=None, actor="on")).status_code == 302
    assert caller.get("/api/users/myself/").status_code == 401
    assert root.post(page_of(user, "delete"), {"post": "yes"}).status_code == 403
    user.refresh_from_db()
    assert (user.is_active, user.actor) == (False, True)


def test_a_password_is_set_there(root, make_user):
    user = make_user("ada")
    fields = {"usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}

    assert root.post(page_of(user).replace("change", "password"), fields).status_code == 302
    assert User.objects.get(username="ada").check_password(PASSWORD)


def test_groups_are_made_changed_and_deleted_there(root):
    assert root.post("/admin/auth/group/add/", {"name": "hospitals"}).status_code == 302
    group = Group.objects.get()
    assert root.post(page_of(group), {"name": "clinics"}).status_code == 302
    assert Group.objects.get().name == "clinics"
    assert root.post(page_of(group, "delete"), {"post": "yes"}).status_code == 302
    assert not Group.objects.exists()


def test_who_is_no_superuser_makes_nobody_one(make_staff, make_user, browser):
    staff = make_staff("view_user", "change_user", "view_group", "change_group")
    group, other, client = Group.objects.create(name="hospitals"), make_user("ada"), browser(staff)
    permission = Permission.objects.first().pk
    rights = {"is_staff": "on", "is_superuser": "on", "groups": group.pk, "user_permissions": permission}

    for user in (other, staff):
        before = (user.is_staff, user.user_permissions.count())
        assert client.post(page_of(user), form_of(user, **rights)).status_code == 302
        user.refresh_from_db()
        assert (user.is_staff, user.user_permissions.count()) == before
        assert not user.is_superuser
        assert not user.groups.exists()
    assert client.post(page_of(group), {"name": "clinics", "permissions": permission}).status_code == 302
    assert not group.permissions.exists()


def test_who_is_no_superuser_does_not_change_one(make_staff, make_user, browser):
    above = make_user("above", is_staff=True, is_superuser=True, password=PASSWORD)
    client = browser(make_staff("view_user", "change_user"))
    password = {"usable_password": "true", "password1": "theirs", "password2": "theirs"}

    assert client.get(page_of(above)).status_code == 200
    assert client.post(page_of(above), form_of(above, is_active=None)).status_code == 403
    assert client.post(page_of(above).replace("change", "password"), password).status_code == 403
    above.refresh_from_db()
    assert above.is_active
    assert above.check_password(PASSWORD)


# On and off


def test_where_it_is_off_there_is_none(settings):
    settings.ADMIN = False
    importlib.reload(urls)
    clear_url_caches()
    try:
        with pytest.raises(Resolver404):
            resolve("/admin/")
        assert Client().get("/admin/").status_code == 404
    finally:
        settings.ADMIN = True
        importlib.reload(urls)
        clear_url_caches()


@pytest.mark.parametrize(
    ("variables", "is_on"),
    [
        ({}, True),
        ({"FOLKMOOT_ADMIN": "false"}, False),
        ({"FOLKMOOT_DATABASE_URL": "postgres://h/n"}, False),
        ({"FOLKMOOT_DATABASE_URL": "postgres://h/n", "FOLKMOOT_ADMIN": "true"}, True),
    ],
)
def test_in_production_somebody_has_to_want_it(variables, is_on):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
    program = "from folkmoot.server import settings; print(settings.ADMIN)"

    run = subprocess.run(
        [sys.executable, "-c", program], env=clean | variables, capture_output=True, text=True, timeout=60, check=True
    )

    assert run.stdout.strip() == str(is_on)
