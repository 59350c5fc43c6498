"""Groups of users: who sees them, who changes them, who belongs to them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from django.contrib.auth.models import Group
from django.db import connections

pytestmark = pytest.mark.django_db

NOT_ALL = {"detail": "You are not allowed to access all groups.", "code": "permission_denied"}
NOT_THIS = {"detail": "You are not allowed to access this group.", "code": "permission_denied"}
NOT_ALLOWED = {"detail": "You do not have permission to perform this action.", "code": "permission_denied"}


@pytest.fixture
def creator(make_user):
    return make_user("creator")


@pytest.fixture
def make_group(as_):
    def make(creator, name="hospitals"):
        return as_(creator).send("POST", "/api/groups/", {"name": name}).json()["id"]

    return make


@pytest.fixture
def group(creator, make_group):
    """The id of a group with two members: who created it, and another."""
    return make_group(creator)


@pytest.fixture
def member(group, make_user):
    user = make_user("member")
    user.groups.add(group)
    return user


def members_of(group):
    return set(Group.objects.get(pk=group).user_set.values_list("username", flat=True))


def ids(*users):
    return {"users": [str(user.pk) for user in users]}


def test_whoever_creates_a_group_is_its_first_member(creator, as_):
    answer = as_(creator).send("POST", "/api/groups/", {"name": "hospitals"})

    group = Group.objects.get()
    assert answer.status_code == 201
    assert answer.json() == {"id": group.pk, "name": "hospitals"}
    assert answer["Location"] == f"http://testserver/api/groups/{group.pk}/"
    assert members_of(group.pk) == {"creator"}


def test_a_group_may_be_made_with_a_form(creator, as_):
    assert as_(creator).post("/api/groups/", {"name": "hospitals"}).status_code == 201


@pytest.mark.parametrize("name", ["", " ", "a" * 151, None, ["x"], "a\0b"])
def test_a_group_needs_a_name(creator, as_, name):
    answer = as_(creator).send("POST", "/api/groups/", {"name": name})

    assert answer.status_code == 400
    assert not Group.objects.exists()


def test_a_name_has_up_to_150_characters(creator, as_):
    assert as_(creator).send("POST", "/api/groups/", {"name": "a" * 150}).status_code == 201


def test_a_name_can_be_taken_once(group, as_, make_user):
    answer = as_(make_user()).send("POST", "/api/groups/", {"name": "hospitals"})

    assert answer.status_code == 400
    assert answer.json() == {"name": ["group with this name already exists."]}


@pytest.mark.django_db(transaction=True)
def test_of_two_who_take_a_name_at_once_one_gets_it(as_, make_user):
    callers = [as_(make_user()) for _ in range(4)]
    together = threading.Barrier(4)

    def create(caller):
        together.wait()
        try:
            return caller.send("POST", "/api/groups/", {"name": "hospitals"}).status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(create, callers))

    assert sorted(statuses) == [201, 400, 400, 400]
    assert Group.objects.get().user_set.count() == 1


def test_staff_lists_all_groups(group, make_group, make_user, as_):
    other = make_group(make_user(), "banks")

    answer = as_(make_user(is_staff=True)).get("/api/groups/")

    assert answer.json() == [{"id": group, "name": "hospitals"}, {"id": other, "name": "banks"}]


def test_nobody_else_lists_all_groups(group, creator, as_):
    answer = as_(creator).get("/api/groups/")

    assert answer.status_code == 403
    assert answer.json() == NOT_ALL


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_groups_are_for_those_who_have_signed_in(anonymous, method):
    assert anonymous.send(method, "/api/groups/", {"name": "x"}).status_code == 401


def test_ones_own_groups_are_listed_below_the_users(group, member, make_group, make_user, as_):
    make_group(make_user(), "banks")

    assert as_(member).get("/api/users/groups/").json() == [{"id": group, "name": "hospitals"}]
    assert as_(make_user()).get("/api/users/groups/").json() == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_member_sees_its_group(group, member, as_, method):
    assert as_(member).send(method, f"/api/groups/{group}/").status_code == 200


def test_a_group_is_shown_with_its_id_and_its_name(group, creator, make_user, as_):
    for user in (creator, make_user(is_staff=True)):
        assert as_(user).get(f"/api/groups/{group}/").json() == {"id": group, "name": "hospitals"}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("PUT", "members/"), ("DELETE", "members/")],
)
def test_a_stranger_has_no_access_to_a_group(group, make_user, as_, method, path):
    answer = as_(stranger := make_user()).send(
        method, f"/api/groups/{group}/{path}", {"name": "mine", "users": [str(stranger.pk)]}
    )

    assert answer.status_code == 403
    assert answer.json() == NOT_THIS
    assert Group.objects.get().name == "hospitals"
    assert members_of(group) == {"creator"}


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("PUT", "members/"), ("DELETE", "members/")]
)
def test_a_member_does_not_change_its_group(group, member, creator, as_, method, path):
    answer = as_(member).send(method, f"/api/groups/{group}/{path}", {"name": "mine"} | ids(creator))

    assert answer.status_code == 403
    assert answer.json() == NOT_ALLOWED
    assert Group.objects.get().name == "hospitals"
    assert members_of(group) == {"creator", "member"}


@pytest.mark.parametrize("who", ["creator", "staff"])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_its_creator_and_staff_rename_a_group(group, creator, make_user, as_, method, who):
    user = creator if who == "creator" else make_user(is_staff=True)

    answer = as_(user).send(method, f"/api/groups/{group}/", {"name": "clinics", "id": 77})

    assert answer.status_code == 200
    assert answer.json() == {"id": group, "name": "clinics"}
    assert Group.objects.get(pk=group).name == "clinics"


def test_renaming_takes_no_name_that_is_taken(group, creator, make_group, make_user, as_):
    make_group(make_user(), "banks")

    assert as_(creator).send("PUT", f"/api/groups/{group}/", {"name": "banks"}).status_code == 400
    assert as_(creator).send("PUT", f"/api/groups/{group}/", {"name": "hospitals"}).status_code == 200


def test_replacing_a_group_needs_its_name(group, creator, as_):
    assert as_(creator).send("PUT", f"/api/groups/{group}/", {}).json() == {"name": ["This field is required."]}
    assert as_(creator).send("PATCH", f"/api/groups/{group}/", {}).json() == {"id": group, "name": "hospitals"}


@pytest.mark.parametrize("who", ["creator", "staff"])
def test_its_creator_and_staff_delete_a_group(group, creator, make_user, as_, who):
    user = creator if who == "creator" else make_user(is_staff=True)

    answer = as_(user).delete(f"/api/groups/{group}/")

    assert (answer.status_code, answer.content) == (204, b"")
    assert not Group.objects.exists()


@pytest.mark.parametrize("who", ["creator", "staff"])
def test_members_are_added_and_removed(group, creator, make_user, as_, who):
    user = creator if who == "creator" else make_user(is_staff=True)
    ada, bob = make_user("ada"), make_user("bob")

    added = as_(user).send("PUT", f"/api/groups/{group}/members/", ids(ada, bob, ada))
    removed = as_(user).send("DELETE", f"/api/groups/{group}/members/", ids(bob))

    assert (added.status_code, removed.status_code) == (200, 200)
    assert set(added.json().pop("users")) == {str(each.pk) for each in (creator, ada, bob)}
    assert removed.json() | {"users": set(removed.json()["users"])} == {
        "id": group,
        "name": "hospitals",
        "users": {str(creator.pk), str(ada.pk)},
    }
    assert members_of(group) == {"creator", "ada"}


def test_nobody_is_added_if_one_is_unknown(group, creator, make_user, as_):
    body = {"users": [str(make_user("ada").pk), str(UUID(int=1))]}

    answer = as_(creator).send("PUT", f"/api/groups/{group}/members/", body)

    assert answer.status_code == 400
    assert answer.json()["detail"] == "Not all provided users were found!"
    assert members_of(group) == {"creator"}


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_members_have_to_be_named(group, creator, as_, method):
    answer = as_(creator).send(method, f"/api/groups/{group}/members/", {})

    assert answer.status_code == 400
    assert list(answer.json()) == ["users"]


def test_removing_who_is_no_member_changes_nothing(group, creator, make_user, as_):
    assert as_(creator).send("DELETE", f"/api/groups/{group}/members/", ids(make_user())).status_code == 200
    assert members_of(group) == {"creator"}


def test_a_creator_who_has_left_may_come_back(group, creator, as_):
    as_(creator).send("DELETE", f"/api/groups/{group}/members/", ids(creator))

    assert as_(creator).get("/api/users/groups/").json() == []
    assert as_(creator).send("PUT", f"/api/groups/{group}/members/", ids(creator)).status_code == 200


def test_a_group_whose_creator_is_gone_is_the_staffs(group, creator, member, make_user, as_):
    creator.delete()

    assert as_(member).delete(f"/api/groups/{group}/").status_code == 403
    assert as_(make_user(is_staff=True)).delete(f"/api/groups/{group}/").status_code == 204


@pytest.mark.parametrize(
    "given", ["0", "999", "abc", "1.5", "-1", "9" * 18, "9" * 40, "9" * 5000, "%D9%A3", str(UUID(int=1))]
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_unknown_group_is_not_found_under_its_id(make_user, as_, given, method):
    answer = as_(make_user(is_staff=True)).send(method, f"/api/groups/{given}/", {"name": "x"})

    assert answer.status_code == 404
    shown = "\u0663" if "%" in given else given
    assert answer.json() == {"detail": f"Group {shown} not found.", "code": "not_found"}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "", "GET, POST, HEAD, OPTIONS"),
        ("POST", "{group}/", "GET, PUT, PATCH, DELETE, HEAD, OPTIONS"),
        ("GET", "{group}/members/", "PUT, DELETE, OPTIONS"),
    ],
)
def test_what_a_path_does_not_take_is_told_with_what_it_takes(group, creator, as_, method, path, allowed):
    answer = as_(creator).send(method, f"/api/groups/{path.format(group=group)}")

    assert answer.status_code == 405
    assert answer["Allow"] == allowed
    assert answer.json()["code"] == "method_not_allowed"


def test_the_options_of_a_path_name_what_it_takes(group, creator, as_):
    groups = as_(creator).options("/api/groups/").json()
    members = as_(creator).options(f"/api/groups/{group}/members/").json()

    assert groups["name"] == "Group List"
    assert groups["actions"]["POST"]["name"]["max_length"] == 150
    assert "application/json" in groups["parses"]
    assert members["name"] == "Members"
    assert members["description"] == "Let users belong to the group."
    assert "users" in members["actions"]["PUT"]
