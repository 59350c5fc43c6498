"""Who may be on this hub, and how one says who one is."""

from __future__ import annotations

import base64
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import unquote
from uuid import UUID

import pytest
from django.db import connections
from django.db.models import F
from django.test import Client
from django.utils import timezone

from folkmoot.errors import NotAllowed
from folkmoot.server.accounts.models import Invitation, Token, User
from folkmoot.server.accounts.services import invite, issue_token, register

pytestmark = pytest.mark.django_db

UNKNOWN = str(UUID(int=1))
PASSWORD = "correct horse battery staple"
MYSELF = "/api/users/myself/"


def sign_up(caller, **fields):
    return caller.send("POST", "/api/users/", {"username": "ada", "password": PASSWORD} | fields)


def basic(username, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


# Registering


def test_who_registers_gets_a_user_and_a_token(anonymous):
    answer = sign_up(anonymous, first_name="Ada", email="ada@example.org", message_endpoint="http://ada.example:81/x")

    user = User.objects.get()
    assert answer.status_code == 201
    assert answer["Location"].endswith(f"/api/users/{user.pk}/")
    assert answer.json() == {
        "id": str(user.pk),
        "username": "ada",
        "first_name": "Ada",
        "last_name": "",
        "email": "ada@example.org",
        "actor": False,
        "client": True,
        "message_endpoint": "http://ada.example:81/x",
        "token": answer.json()["token"],
    }


def test_the_token_of_the_registration_signs_in(anonymous, caller):
    token = sign_up(anonymous).json()["token"]

    assert caller(token).get(MYSELF).json()["username"] == "ada"


def test_a_token_is_forty_hex_digits_and_not_kept(anonymous):
    plain = sign_up(anonymous).json()["token"]

    assert len(plain) == 40
    int(plain, 16)
    row = Token.objects.values().get()
    assert plain not in str(row)
    assert row["digest"] == Token.digest_of(plain)


def test_a_password_is_not_kept(anonymous):
    sign_up(anonymous)

    assert PASSWORD not in str(User.objects.values().get())


def test_one_may_register_with_a_form(anonymous):
    answer = anonymous.post(
        "/api/users/", "username=ada&password=correct+horse+battery", "application/x-www-form-urlencoded"
    )

    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("is_staff", True),
        ("is_superuser", True),
        ("is_active", False),
        ("id", UNKNOWN),
        ("groups", [1]),
        ("last_notification", 7),
        ("date_joined", "2001-01-01T00:00:00Z"),
    ],
)
def test_nobody_gives_themselves_what_is_not_theirs_to_give(anonymous, field, value):
    answer = sign_up(anonymous, **{field: value})

    assert answer.status_code == 201
    user = User.objects.get()
    kept = list(user.groups.all()) if field == "groups" else getattr(user, field)
    assert str(kept) != str(value)


@pytest.mark.parametrize("username", ["", " ", "a" * 151, "a b", "a:b", None, ["ada"], {"is": "ada"}])
def test_a_name_that_is_none_is_refused(anonymous, username):
    answer = sign_up(anonymous, username=username)

    assert answer.status_code == 400
    assert list(answer.json()) == ["username"]
    assert answer["X-Error-Code"] == "invalid_input"


def test_a_name_can_be_taken_once(anonymous, make_user):
    make_user("ada")

    answer = sign_up(anonymous)

    assert answer.status_code == 400
    assert answer.json() == {"username": ["A user with that username already exists."]}


@pytest.mark.parametrize("password", ["", None])
def test_an_empty_password_is_refused(anonymous, password):
    assert sign_up(anonymous, password=password).status_code == 400


def test_what_is_missing_is_named(anonymous):
    answer = anonymous.send("POST", "/api/users/", {})

    assert answer.status_code == 400
    assert set(answer.json()) == {"username", "password"}


@pytest.mark.parametrize(
    "endpoint", ["", "http://client-01:8101/", "https://a.example", "http://127.0.0.1:80/x?y=z", "http://[::1]:8/"]
)
def test_an_endpoint_is_any_web_address_with_a_host(anonymous, endpoint):
    assert sign_up(anonymous, message_endpoint=endpoint).json()["message_endpoint"] == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "client-01",
        "/path",
        "//host/",
        "ftp://host/",
        "file:///etc/passwd",
        "gopher://host/",
        "http://",
        "http:///path",
        "http://host:0/",
        "http://host:65536/",
        "http://host:port/",
        "http://user:secret@host/",
        "http://user@host/",
        "http://ho st/",
        "http://host/\r\nX-Evil: 1",
        "http://[::1/",
        "http://" + "a" * 2000,
    ],
)
def test_an_endpoint_that_is_no_web_address_is_refused(anonymous, endpoint):
    answer = sign_up(anonymous, message_endpoint=endpoint)

    assert answer.status_code == 400
    assert list(answer.json()) == ["message_endpoint"]


def test_a_closed_hub_registers_nobody(anonymous, settings):
    settings.REGISTRATION = "closed"

    answer = sign_up(anonymous)

    assert answer.status_code == 403
    assert answer.json() == {
        "detail": "Registration is closed on this server; ask its operator for an account.",
        "code": "permission_denied",
    }
    assert not User.objects.exists()


@pytest.fixture
def by_invitation(settings):
    settings.REGISTRATION = "invite"


@pytest.mark.usefixtures("by_invitation")
def test_an_invitation_lets_one_user_register(anonymous):
    invitation = invite(days=1)

    assert sign_up(anonymous, invitation=invitation).status_code == 201
    assert sign_up(anonymous, username="bob", invitation=invitation).status_code == 403
    assert User.objects.count() == 1


@pytest.mark.usefixtures("by_invitation")
@pytest.mark.parametrize("fields", [{}, {"invitation": ""}, {"invitation": "0" * 40}, {"invitation": None}])
def test_who_is_not_invited_is_told_so_and_nothing_else(anonymous, make_user, fields):
    make_user("ada")

    answer = sign_up(anonymous, username="ada", **fields)

    assert answer.status_code == 403
    assert answer.json() == {
        "detail": "Registration on this server takes an invitation of its operator, which is good for one user.",
        "code": "permission_denied",
    }


@pytest.mark.usefixtures("by_invitation")
def test_an_invitation_is_good_for_so_many_days(anonymous):
    invitation = invite(days=1)
    Invitation.objects.update(expires_at=F("expires_at") - timedelta(days=1))

    assert sign_up(anonymous, invitation=invitation).status_code == 403


@pytest.mark.usefixtures("by_invitation")
def test_an_attempt_that_fails_spends_no_invitation(anonymous, make_user):
    make_user("ada")
    invitation = invite(days=1)

    assert sign_up(anonymous, username="ada", invitation=invitation).status_code == 400
    assert sign_up(anonymous, username="bob", invitation=invitation).status_code == 201


def test_of_two_who_register_with_one_invitation_the_second_is_refused():
    invitation = invite(days=1)
    register(username="ada", password=None, invitation=invitation)

    # As if it had asked whether it may before the first was done.
    with pytest.raises(NotAllowed, match="takes an invitation"):
        register(username="bob", password=None, invitation=invitation)

    assert [user.username for user in User.objects.all()] == ["ada"]


def test_an_open_hub_asks_for_no_invitation_and_spends_none(anonymous):
    assert sign_up(anonymous, invitation=invite(days=1)).status_code == 201
    assert Invitation.objects.count() == 1


def test_of_an_invitation_only_its_digest_is_kept():
    plain = invite(days=1)

    assert plain not in str(Invitation.objects.values().get())


@pytest.mark.parametrize("header", ["Token " + "0" * 40, "Token", "Bearer x y", "Basic !!!", "Basic eDp5", "Weird"])
def test_a_stale_header_does_not_keep_anybody_from_registering(caller, header):
    assert sign_up(caller(Authorization=header)).status_code == 201


# Signing in


@pytest.mark.parametrize("scheme", ["Token", "token", "Bearer", "BEARER"])
def test_a_token_signs_in(make_user, caller, scheme):
    user = make_user()
    _, plain = issue_token(user)

    assert caller(Authorization=f"{scheme} {plain}").get(MYSELF).json()["id"] == str(user.pk)


def test_a_name_with_its_password_signs_in(make_user, caller):
    user = make_user("ada", password=PASSWORD)

    assert caller(**basic("ada", PASSWORD)).get(MYSELF).json()["id"] == str(user.pk)


def test_a_token_in_place_of_the_name_signs_in_without_a_password(make_user, caller):
    user = make_user()
    _, plain = issue_token(user)

    assert caller(**basic(plain, "")).get(MYSELF).json()["id"] == str(user.pk)


def test_without_credentials_one_is_asked_for_them(anonymous):
    answer = anonymous.get(MYSELF)

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Token"
    assert answer.json() == {
        "detail": "Authentication credentials were not provided.",
        "code": "not_authenticated",
    }


NO_TOKEN = "Invalid token."
NO_PASSWORD = "Invalid username/password."
NOT_BASIC = "Invalid basic header. Credentials not correctly base64 encoded."


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("Token " + "0" * 40, NO_TOKEN),
        ("Token ", NO_TOKEN),
        ("Token", NO_TOKEN),
        ("Bearer \xff", NO_TOKEN),
        ("Token a b", NO_TOKEN),
        ("Basic", "Invalid basic header. No credentials provided."),
        ("Basic a b", "Invalid basic header. Credentials string should not contain spaces."),
        ("Basic !!!", NOT_BASIC),
        ("Basic " + base64.b64encode(b"no colon").decode(), NOT_BASIC),
        ("Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(), NO_PASSWORD),
        ("Basic " + base64.b64encode(b"ada:").decode(), NO_TOKEN),
        ("Basic " + base64.b64encode(b":").decode(), NO_TOKEN),
        ("Basic " + base64.b64encode(b"ada:wrong").decode(), NO_PASSWORD),
        ("Basic " + base64.b64encode(b"nobody:" + PASSWORD.encode()).decode(), NO_PASSWORD),
    ],
)
def test_wrong_credentials_are_told_so(make_user, caller, header, sentence):
    make_user("ada", password=PASSWORD)

    answer = caller(Authorization=header).get(MYSELF)

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Token"
    assert answer.json() == {"detail": sentence, "code": "authentication_failed"}


def test_a_user_without_a_password_does_not_sign_in_by_an_empty_one(caller):
    register(username="ada", password=None)

    assert caller(**basic("ada", "")).get(MYSELF).status_code == 401


def test_an_expired_token_is_worth_nothing(make_user, caller):
    _, plain = issue_token(make_user(), expires_at=timezone.now() - timedelta(seconds=1))

    assert caller(plain).get(MYSELF).status_code == 401


def test_a_token_is_good_until_it_expires(make_user, caller):
    _, plain = issue_token(make_user(), expires_at=timezone.now() + timedelta(minutes=1))

    assert caller(plain).get(MYSELF).status_code == 200


@pytest.mark.parametrize("way", ["token", "token as name", "password"])
def test_a_disabled_user_does_not_sign_in(make_user, caller, way):
    user = make_user("ada", password=PASSWORD, is_active=False)
    _, plain = issue_token(user)
    headers = {
        "token": {"Authorization": f"Token {plain}"},
        "token as name": basic(plain, ""),
        "password": basic("ada", PASSWORD),
    }

    assert caller(**headers[way]).get(MYSELF).status_code == 401


def browser(user, **options):
    client = Client(raise_request_exception=False, **options)
    client.force_login(user)
    return client


def test_a_browser_reads_with_its_session(make_user):
    user = make_user()

    assert browser(user).get(MYSELF).json()["id"] == str(user.pk)


def test_a_browser_signs_in_with_a_password_and_reads(make_user):
    user = make_user("ada", password=PASSWORD)
    client = Client(raise_request_exception=False)

    page = client.get("/api-auth/login/")
    answer = client.post("/api-auth/login/", {"username": "ada", "password": PASSWORD, "next": "/api/"})

    assert (page.status_code, answer.status_code, answer["Location"]) == (200, 302, "/api/")
    assert client.get(MYSELF).json()["id"] == str(user.pk)


def test_a_browser_that_signs_in_is_not_led_elsewhere(make_user):
    make_user("ada", password=PASSWORD)

    answer = Client(raise_request_exception=False).post(
        "/api-auth/login/", {"username": "ada", "password": PASSWORD, "next": "https://evil.example/"}
    )

    assert "evil" not in answer.headers.get("Location", "")


def test_a_browser_signs_in_with_a_csrf_token_alone(make_user):
    make_user("ada", password=PASSWORD)
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)

    answer = client.post("/api-auth/login/", {"username": "ada", "password": PASSWORD})

    assert answer.status_code == 403


def test_a_browser_changes_nothing_without_a_csrf_token(make_user):
    answer = browser(make_user(), enforce_csrf_checks=True).post("/api/tokens/", {}, "application/json")

    assert answer.status_code == 403
    assert "CSRF" in answer.json()["detail"]
    assert not Token.objects.exists()


# Tokens


def test_a_new_token_shows_its_digits_this_once(make_user, as_, caller):
    user = make_user()

    answer = as_(user).send("POST", "/api/tokens/", {"name": "laptop"})

    made = answer.json()
    assert answer.status_code == 201
    assert answer["Location"].endswith(f"/api/tokens/{made['id']}/")
    assert made["name"] == "laptop"
    assert made["prefix"] == made["token"][:8]
    assert caller(made["token"]).get(MYSELF).json()["id"] == str(user.pk)


def test_a_list_of_tokens_shows_no_digits(make_user, as_):
    plain = as_(user := make_user()).send("POST", "/api/tokens/", {}).json()["token"]

    listed = as_(user).get("/api/tokens/")

    assert len(listed.json()) == 2
    assert set(listed.json()[0]) == {"id", "name", "prefix", "created_at", "expires_at"}
    assert plain not in listed.text
    assert Token.digest_of(plain) not in listed.text


def test_one_sees_only_ones_own_tokens(make_user, as_):
    issue_token(make_user(), name="someone else's")

    assert [each["name"] for each in as_(make_user()).get("/api/tokens/").json()] == [""]


def test_a_token_can_be_made_to_expire(make_user, as_, caller):
    made = as_(make_user()).send("POST", "/api/tokens/", {"expires_at": "2020-01-01T00:00:00Z"}).json()

    assert made["expires_at"] == "2020-01-01T00:00:00Z"
    assert caller(made["token"]).get(MYSELF).status_code == 401


def test_nobody_chooses_the_digits_or_the_owner_of_a_token(make_user, as_, caller):
    stranger = make_user()
    chosen = "ab" * 20
    body = {"token": chosen, "digest": Token.digest_of(chosen), "user": str(stranger.pk), "prefix": "abababab"}

    made = as_(make_user()).send("POST", "/api/tokens/", body).json()

    assert made["token"] != chosen
    assert caller(chosen).get(MYSELF).status_code == 401
    assert not stranger.tokens.exists()


def test_a_revoked_token_is_worth_nothing(make_user, as_, caller):
    user = make_user()
    token, plain = issue_token(user)

    answer = as_(user).delete(f"/api/tokens/{token.pk}/")

    assert answer.status_code == 204
    assert caller(plain).get(MYSELF).status_code == 401


def test_nobody_revokes_someone_elses_token(make_user, as_):
    token, _ = issue_token(make_user())

    answer = as_(make_user(is_staff=True)).delete(f"/api/tokens/{token.pk}/")

    assert answer.status_code == 404
    assert answer.json() == {"detail": f"Token {token.pk} not found.", "code": "not_found"}
    assert Token.objects.filter(pk=token.pk).exists()


# Looking users up


@pytest.fixture
def ada(make_user):
    return make_user("ada", email="ada@example.org", message_endpoint="http://ada.example/")


def contact_shown(caller, user):
    listed = {each["id"]: each for each in caller.get("/api/users/").json()}[str(user.pk)]
    single = caller.get(f"/api/users/{user.pk}/").json()
    assert listed == single
    return (single["email"], single["message_endpoint"])


REACHABLE = ("ada@example.org", "http://ada.example/")


def test_a_stranger_does_not_learn_how_to_reach_a_user(ada, as_, make_user):
    assert contact_shown(as_(make_user()), ada) == ("", "")


def test_a_user_sees_everything_about_itself(ada, as_):
    assert contact_shown(as_(ada), ada) == REACHABLE


def test_staff_learns_how_to_reach_a_user(ada, as_, make_user):
    assert contact_shown(as_(make_user(is_staff=True)), ada) == REACHABLE


def test_the_actor_learns_how_to_reach_its_participants(ada, as_, make_training):
    training = make_training(participants=[ada])

    assert contact_shown(as_(training.actor), ada) == REACHABLE


def test_participants_do_not_learn_how_to_reach_each_other(ada, as_, make_user, make_training):
    other = make_user()
    make_training(participants=[ada, other])

    assert contact_shown(as_(other), ada) == ("", "")


def test_a_user_is_shown_with_these_fields_alone(ada, as_):
    fields = {"id", "username", "first_name", "last_name", "email", "actor", "client", "message_endpoint"}

    assert set(as_(ada).get(MYSELF).json()) == fields


@pytest.mark.parametrize("given", [UNKNOWN, "1", "myselves", "1.5", "0" * 40, "%00", "%ff", "a%20b"])
@pytest.mark.parametrize(("plural", "thing"), [("users", "User"), ("models", "Model"), ("trainings", "Training")])
def test_an_unknown_id_is_not_found_under_its_name(as_, make_user, plural, thing, given):
    answer = as_(make_user()).get(f"/api/{plural}/{given}/")

    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"
    if given != "%ff":
        assert answer.json()["detail"] == f"{thing} {unquote(given)} not found."


# At the same moment


@pytest.mark.django_db(transaction=True)
def test_of_two_who_register_under_one_name_at_once_one_gets_it(caller):
    together = threading.Barrier(4)

    def register_once(_):
        together.wait()
        try:
            return sign_up(caller()).status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(register_once, range(4)))

    assert sorted(statuses) == [201, 400, 400, 400]
