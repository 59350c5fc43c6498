"""What users change about themselves, and what they take part in. Registering and signing in: test_accounts.py."""

from __future__ import annotations

from uuid import UUID

import pytest
from django.urls import reverse

pytestmark = pytest.mark.django_db

MYSELF = "/api/users/myself/"
PASSWORD = "correct horse battery staple"
NEW = "a new one altogether"


@pytest.fixture
def ada(make_user):
    return make_user("ada", password=PASSWORD, email="ada@example.org")


def password_of(user):
    return f"/api/users/{user.pk}/password/"


def signs_in_with(user, password):
    user.refresh_from_db()
    return user.check_password(password)


# Myself


def test_one_changes_ones_names_and_addresses(ada, as_):
    changed = {
        "first_name": "Ada",
        "last_name": "Lovelace",
        "email": "lovelace@example.org",
        "message_endpoint": "http://client-01:8101/",
    }

    answer = as_(ada).send("PATCH", MYSELF, changed)

    assert answer.status_code == 200
    assert answer.json() == {"id": str(ada.pk), "username": "ada", "actor": False, "client": True} | changed
    assert as_(ada).get(MYSELF).json() == answer.json()


def test_what_is_not_named_stays(ada, as_):
    assert as_(ada).send("PATCH", MYSELF, {"first_name": "Ada"}).json()["email"] == "ada@example.org"


def test_one_may_change_oneself_with_a_form(ada, as_):
    answer = as_(ada).generic("PATCH", MYSELF, "first_name=Ada", "application/x-www-form-urlencoded")

    assert answer.json()["first_name"] == "Ada"
    assert answer.json()["email"] == "ada@example.org"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", str(UUID(int=1))),
        ("username", "eve"),
        ("password", "eve's"),
        ("actor", True),
        ("client", False),
        ("is_staff", True),
        ("is_superuser", True),
        ("is_active", False),
        ("groups", [1]),
        ("user_permissions", [1]),
        ("last_login", "2001-01-01T00:00:00Z"),
        ("date_joined", "2001-01-01T00:00:00Z"),
        ("last_notification", 7),
    ],
)
def test_one_changes_nothing_else_about_oneself(ada, as_, field, value):
    before = type(ada).objects.values().get(pk=ada.pk)

    answer = as_(ada).send("PATCH", MYSELF, {field: value})

    assert answer.status_code == 200
    assert type(ada).objects.values().get(pk=ada.pk) == before
    assert not ada.groups.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "nowhere"),
        ("message_endpoint", "ftp://host/"),
        ("message_endpoint", "client-01"),
        ("first_name", "a" * 151),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(ada, as_, field, value):
    answer = as_(ada).send("PATCH", MYSELF, {field: value})

    assert answer.status_code == 400
    assert list(answer.json()) == [field]


def test_nobody_changes_a_user_by_its_id(ada, as_):
    answer = as_(ada).send("PATCH", f"/api/users/{ada.pk}/", {"first_name": "Ada"})

    assert answer.status_code == 405
    assert answer["Allow"] == "GET, HEAD, OPTIONS"


def test_a_stranger_changes_nobody(ada, anonymous):
    assert anonymous.send("PATCH", MYSELF, {"first_name": "Eve"}).status_code == 401


# Passwords


def test_one_sets_ones_password_by_telling_the_present_one(ada, as_):
    answer = as_(ada).send("PUT", password_of(ada), {"password": NEW, "current_password": PASSWORD})

    assert (answer.status_code, answer.content) == (204, b"")
    assert signs_in_with(ada, NEW)


@pytest.mark.parametrize(
    ("current", "complaint"),
    [
        ({}, "This field is required."),
        ({"current_password": "guessed"}, "This is not your current password."),
        ({"current_password": ""}, "This field may not be blank."),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("is_staff", [False, True])
def test_without_the_present_one_ones_password_stays(ada, as_, method, current, complaint, is_staff):
    ada.is_staff = is_staff
    ada.save()

    answer = as_(ada).send(method, password_of(ada), {"password": NEW} | current)

    assert answer.status_code == 400
    assert answer.json() == {"current_password": [complaint]}
    assert signs_in_with(ada, PASSWORD)


@pytest.mark.parametrize("password", ["", None, ["x"], "a" * 1001])
def test_a_password_that_is_none_is_refused(ada, as_, password):
    answer = as_(ada).send("PUT", password_of(ada), {"password": password, "current_password": PASSWORD})

    assert answer.status_code == 400
    assert list(answer.json()) == ["password"]
    assert signs_in_with(ada, PASSWORD)


def test_spaces_belong_to_a_password(ada, as_):
    as_(ada).send("PUT", password_of(ada), {"password": " x ", "current_password": PASSWORD})

    assert signs_in_with(ada, " x ")


def test_who_has_no_password_sets_one_with_a_token_alone(make_user, as_):
    user = make_user()

    assert as_(user).send("PUT", password_of(user), {"password": NEW}).status_code == 204
    assert signs_in_with(user, NEW)


def test_without_a_password_tokens_alone_sign_in(ada, as_):
    answer = as_(ada).send("DELETE", password_of(ada), {"current_password": PASSWORD})

    assert (answer.status_code, answer.content) == (204, b"")
    assert not signs_in_with(ada, PASSWORD)
    assert not ada.has_usable_password()
    assert as_(ada).get(MYSELF).status_code == 200


def test_a_password_may_be_removed_twice(make_user, as_):
    user = make_user()

    assert as_(user).delete(password_of(user)).status_code == 204
    assert as_(user).delete(password_of(user)).status_code == 204


def test_staff_sets_and_removes_the_password_of_others(ada, make_user, as_):
    staff = as_(make_user(is_staff=True))

    assert staff.send("PUT", password_of(ada), {"password": NEW}).status_code == 204
    assert signs_in_with(ada, NEW)
    assert staff.delete(password_of(ada)).status_code == 204
    assert not ada.__class__.objects.get(pk=ada.pk).has_usable_password()


def test_staff_does_not_become_a_superuser_by_a_password(make_user, as_):
    root = make_user(is_staff=True, is_superuser=True, password=PASSWORD)

    assert as_(make_user(is_staff=True)).send("PUT", password_of(root), {"password": NEW}).status_code == 403
    assert as_(make_user(is_staff=True)).delete(password_of(root)).status_code == 403
    assert signs_in_with(root, PASSWORD)


def test_a_superuser_sets_the_password_of_another(make_user, as_):
    root = make_user(is_staff=True, is_superuser=True)
    other = make_user(is_staff=True, is_superuser=True)

    assert as_(root).send("PUT", password_of(other), {"password": NEW}).status_code == 204


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_nobody_else_touches_a_password(ada, make_user, as_, anonymous, method):
    body = {"password": NEW, "current_password": PASSWORD}

    assert as_(make_user()).send(method, password_of(ada), body).status_code == 403
    assert anonymous.send(method, password_of(ada), body).status_code == 401
    assert signs_in_with(ada, PASSWORD)


def test_the_password_of_nobody_is_not_found(make_user, as_):
    unknown = UUID(int=1)

    answer = as_(make_user(is_staff=True)).send("PUT", f"/api/users/{unknown}/password/", {"password": NEW})

    assert answer.status_code == 404
    assert answer.json() == {"detail": f"User {unknown} not found.", "code": "not_found"}


def test_a_password_is_never_shown(ada, as_):
    answer = as_(ada).get(password_of(ada))

    assert answer.status_code == 405
    assert answer["Allow"] == "PUT, DELETE, OPTIONS"


# My trainings


def test_ones_trainings_are_those_that_one_steers_or_takes_part_in(make_user, make_training, as_):
    user = make_user()
    steered, joined, _ = make_training(user), make_training(participants=[user]), make_training()

    listed = as_(user).get("/api/users/trainings/")

    assert [each["id"] for each in listed.json()] == [str(steered.pk), str(joined.pk)]


def test_staff_is_not_told_that_everything_is_its_own(make_user, make_training, as_):
    make_training()

    assert as_(make_user(is_staff=True)).get("/api/users/trainings/").json() == []


def test_a_training_of_mine_is_shown_as_in_the_list_of_trainings(make_training, as_):
    training = make_training()
    actor = as_(training.actor)

    mine, listed = actor.get("/api/users/trainings/").json(), actor.get("/api/trainings/").json()

    assert mine == listed
    assert set(mine[0]["participants"]) == {str(user.pk) for user in training.participants.all()}
    assert mine[0]["locked"] is False


def test_a_training_is_locked_while_a_round_is_aggregated(make_scene, as_):
    scene = make_scene()
    for participant in scene.participants:
        scene.send_update(participant)

    listed = as_(scene.actor).get("/api/trainings/").json()

    assert [each["locked"] for each in listed] == [True]
    assert scene.shown["locked"] is True


# Routes


@pytest.mark.parametrize("path", ["", "myself/", "groups/", "trainings/"])
def test_what_can_be_read_has_a_head(ada, as_, path):
    answer = as_(ada).head(f"/api/users/{path}")

    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("path", "name"),
    [("", "User List"), ("myself/", "Myself"), ("groups/", "My groups"), ("trainings/", "My trainings")],
)
def test_the_options_of_a_path_say_what_it_is(ada, as_, path, name):
    described = as_(ada).options(f"/api/users/{path}").json()

    assert described["name"] == name
    assert described["description"].endswith(".")
    assert "application/json" in described["renders"]


def test_the_options_of_registering_name_its_fields(ada, as_):
    fields = as_(ada).options("/api/users/").json()["actions"]["POST"]

    assert fields["username"]["required"] is True
    assert "token" not in fields


@pytest.mark.parametrize("path", ["myself", "groups", "trainings"])
def test_a_missing_slash_leads_to_the_path_with_one(ada, as_, path):
    answer = as_(ada).get(f"/api/users/{path}")

    assert (answer.status_code, answer["Location"]) == (301, f"/api/users/{path}/")


@pytest.mark.parametrize(
    ("name", "pk", "path"),
    [
        ("user-list", None, "users/"),
        ("user-detail", 1, "users/1/"),
        ("user-myself", None, "users/myself/"),
        ("user-groups", None, "users/groups/"),
        ("user-trainings", None, "users/trainings/"),
        ("user-password", 1, "users/1/password/"),
        ("group-list", None, "groups/"),
        ("group-detail", 1, "groups/1/"),
        ("group-members", 1, "groups/1/members/"),
    ],
)
def test_each_path_has_a_name(name, pk, path):
    assert reverse(name, kwargs=pk and {"pk": pk}) == f"/api/{path}"
