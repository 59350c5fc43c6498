"""A user name and a password with every request: checked slowly once, remembered for a minute."""

from __future__ import annotations

import base64

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.db import connection
from django.test.utils import CaptureQueriesContext

from folkmoot.server.accounts.passwords import VerifiedPasswords, user_with_password, verified_passwords

pytestmark = pytest.mark.django_db

MYSELF = "/api/users/myself/"
PASSWORD = "correct horse battery staple"


@pytest.fixture
def slow_checks(monkeypatch):
    """A list with an entry for each time that the slow hash, here a quick one, has been computed."""
    done = []
    quick = MD5PasswordHasher.encode

    def counted(hasher, password, salt):
        done.append(password)
        return quick(hasher, password, salt)

    monkeypatch.setattr(MD5PasswordHasher, "encode", counted)
    return done


@pytest.fixture
def ada(make_user):
    return make_user("ada", password=PASSWORD)


@pytest.fixture
def ask(caller):
    """A function: the status of a request with these credentials, text or bytes."""

    def ask(username="ada", password=PASSWORD, *, raw=None):
        credentials = raw if raw is not None else f"{username}:{password}".encode()
        return caller(Authorization="Basic " + base64.b64encode(credentials).decode()).get(MYSELF).status_code

    return ask


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_a_password_is_checked_slowly_once(ada, ask, slow_checks):
    assert [ask(), ask(), ask()] == [200, 200, 200]
    assert slow_checks == [PASSWORD]


def test_a_known_password_costs_one_query(ada, ask):
    ask()

    with CaptureQueriesContext(connection) as queries:
        assert ask() == 200
    assert len(queries) == 1


def test_a_wrong_password_is_never_remembered(ada, ask, slow_checks):
    assert [ask(password="wrong"), ask(password="wrong")] == [401, 401]
    assert len(slow_checks) == 2


def test_a_wrong_password_is_wrong_after_the_right_one_too(ada, ask):
    assert [ask(), ask(password="wrong"), ask(password=PASSWORD + " "), ask()] == [200, 401, 401, 200]


def test_a_changed_password_counts_at_once(ada, ask):
    ask()
    ada.set_password("another")
    ada.save()

    assert (ask(), ask(password="another")) == (401, 200)


def test_a_password_that_was_removed_counts_no_more(ada, ask, as_):
    ask()
    as_(ada).send("DELETE", f"/api/users/{ada.pk}/password/", {"current_password": PASSWORD})

    assert ask() == 401


def test_a_user_who_is_disabled_is_out_at_once(ada, ask):
    ask()
    type(ada).objects.filter(pk=ada.pk).update(is_active=False)

    assert ask() == 401


def test_a_user_who_is_gone_is_out_at_once(ada, ask):
    ask()
    ada.delete()

    assert ask() == 401


def test_the_password_of_one_user_is_not_anothers(ada, make_user, ask):
    make_user("bob", password="bob's")
    ask()

    assert (ask("bob"), ask("bob", "bob's")) == (401, 200)


@pytest.mark.parametrize("who", ["nobody", "ada", "disabled", "tokens only", "a\0da"])
def test_refusing_takes_as_much_work_whoever_it_is(ada, make_user, ask, slow_checks, who):
    make_user("disabled", password=PASSWORD, is_active=False)
    make_user("tokens only")
    slow_checks.clear()

    assert ask(who, PASSWORD if who == "disabled" else "wrong") == 401
    assert len(slow_checks) == 1


@pytest.mark.parametrize(
    "raw",
    [b"a\0da:x", b"ada:x\0", b"\0:\0", b"\xff\xfe:\xff", b"\xed\xa0\x80:x", b"ada:\xff", b"a" * 5000 + b":x", b"::"],
)
def test_credentials_that_are_no_text_are_wrong_ones(ada, ask, raw):
    assert ask(raw=raw) == 401


def test_a_name_that_no_database_takes_is_not_looked_for(ada):
    with CaptureQueriesContext(connection) as queries:
        assert user_with_password("a\0da", PASSWORD) is None
    assert len(queries) == 0


def test_a_password_may_have_any_characters(make_user, ask):
    make_user("bob", password="pass:wörd\0 ")

    assert [ask("bob", "pass:wörd\0 "), ask("bob", "pass:wörd\0 ")] == [200, 200]


def test_what_is_remembered_is_no_password(ada, ask):
    ask()

    assert PASSWORD not in str(vars(verified_passwords))
    assert ada.password not in str(vars(verified_passwords))


def test_a_password_is_remembered_for_a_minute(ada):
    clock = Clock()
    remembered = VerifiedPasswords(clock=clock)
    remembered.add(ada, PASSWORD)

    clock.now += 59.9
    assert remembered.has(ada, PASSWORD)
    clock.now += 0.2
    assert not remembered.has(ada, PASSWORD)


def test_being_asked_for_does_not_make_it_last_longer(ada):
    clock = Clock()
    remembered = VerifiedPasswords(clock=clock)
    remembered.add(ada, PASSWORD)

    for _ in range(7):
        clock.now += 10
        known = remembered.has(ada, PASSWORD)
    assert not known


def test_only_so_many_are_remembered_and_the_latest_stay(make_user):
    remembered = VerifiedPasswords(most_users=2)
    users = [make_user(password=PASSWORD) for _ in range(3)]
    for user in users:
        remembered.add(user, PASSWORD)

    assert [remembered.has(user, PASSWORD) for user in users] == [False, True, True]


@pytest.mark.parametrize(("stored", "given"), [("a", "bc"), ("1:a1:b", ""), ("abc", "")])
def test_where_a_password_ends_and_another_part_begins_is_told_apart(make_user, stored, given):
    remembered = VerifiedPasswords()
    user = make_user()
    user.password = "ab"
    remembered.add(user, "c")
    user.password = stored

    assert not remembered.has(user, given)
