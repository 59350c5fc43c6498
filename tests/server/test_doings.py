"""What participants say that they are doing, and what that means for the round."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from folkmoot.server.notifications import presence
from folkmoot.server.notifications.models import Presence
from folkmoot.server.trainings.models import Assignment

pytestmark = pytest.mark.django_db


@pytest.fixture
def say(as_):
    def say(scene, user, state, round=0, **more):
        body = {"round": round, "state": state, **more}
        return as_(user).send("POST", f"/api/trainings/{scene.id}/progress/", body)

    return say


@pytest.fixture
def seen(as_):
    """What the actor sees of each participant, by name."""

    def seen(scene, by=None):
        listed = as_(by or scene.actor).get(f"/api/trainings/{scene.id}/participants/").json()
        return {each["username"]: each for each in listed}

    return seen


def doing_of(seen, scene):
    return [each["state"] for _, each in sorted(seen(scene).items())]


def a_second_passes():
    Assignment.objects.update(reported_at=timezone.now() - timedelta(seconds=1))


def test_the_actor_sees_what_each_participant_is_doing(make_scene, say, seen):
    scene = make_scene(participants=5)
    idle, loading, busy, done, broken = scene.participants

    assert say(scene, loading, "downloading").status_code == 204
    say(scene, busy, "training", percent=40)
    scene.send_update(done)
    say(scene, broken, "failed", reason="no such disk: /data")

    shown = seen(scene)
    assert doing_of(seen, scene) == ["assigned", "downloading", "training", "uploaded", "failed"]
    assert (shown[busy.username]["percent"], shown[busy.username]["round"]) == (40, 0)
    assert shown[broken.username]["reason"] == "no such disk: /data"
    assert shown[idle.username]["reported_at"] is None


def test_a_participant_sees_itself_alone(make_scene, seen):
    scene = make_scene()

    assert list(seen(scene, by=scene.participants[0])) == [scene.participants[0].username]


def test_before_the_first_round_nobody_is_doing_anything(make_scene, seen):
    scene = make_scene(started=False, participants=1)

    (shown,) = seen(scene).values()
    assert (shown["round"], shown["state"], shown["percent"], shown["reason"]) == (None, None, None, "")


@pytest.mark.parametrize("state", ["failed", "declined"])
def test_nobody_waits_for_who_says_that_no_update_will_come(make_scene, work, say, seen, state):
    scene = make_scene(target_num_updates=2, options={"tests": "never"})
    one, other = scene.participants

    scene.send_update(one)
    say(scene, other, state, reason="the data is locked")
    work()

    assert scene.round_states == ["CLOSED", "OPEN"]
    assert scene.asked_of(other) == ["UPDATE_ROUND_START"]
    assert doing_of(seen, scene) == ["assigned", "assigned"]


def test_where_too_few_are_left_the_round_waits_for_its_deadline(make_scene, say):
    scene = make_scene(options={"tests": "never"})
    for participant in scene.participants:
        say(scene, participant, "declined")
    assert scene.round_states == ["OPEN"]

    scene.let_deadline_pass()
    assert scene.asked_of(scene.participants[0]) == ["UPDATE_ROUND_START"] * 2
    for participant in scene.participants:
        assert scene.send_update(participant).status_code == 201


def test_who_has_failed_may_still_send_an_update(make_scene, work, say, seen):
    scene = make_scene(participants=3, options={"tests": "never"})
    one, other, broken = scene.participants

    say(scene, broken, "failed", reason="out of memory")
    assert scene.send_update(broken, w=[8, 8]).status_code == 201
    scene.send_update(one, w=[0, 0])
    scene.send_update(other, w=[1, 1])
    work()

    assert scene.weights() == [3, 3]
    assert doing_of(seen, scene) == ["uploaded"] * 3


def test_who_is_late_is_told_so_and_asked_again(make_scene, work, as_, seen):
    scene = make_scene(target_num_updates=2, options={"tests": "never", "min_updates": 1})
    quick, slow = scene.participants
    scene.send_update(quick)
    scene.let_deadline_pass()

    answer = scene.send_update(slow)
    assert answer.json() == {
        "detail": f"Training with ID {scene.id} is not currently in round 0: it went on without your update; you still "
        "take part, and may be asked in the next",
        "code": "round_closed",
    }
    rounds = as_(scene.actor).get(f"/api/trainings/{scene.id}/rounds/").json()
    assert rounds[0]["missing"] == [{"id": str(slow.pk), "username": slow.username, "state": "late"}]
    assert [each["state"] for each in rounds[1]["missing"]] == ["assigned", "assigned"]
    assert scene.send_update(slow, round=1).status_code == 201


def test_two_reports_within_a_second_are_one(make_scene, say, seen):
    scene = make_scene(participants=1)
    (one,) = scene.participants

    say(scene, one, "training", percent=10)
    say(scene, one, "training", percent=20)
    assert seen(scene)[one.username]["percent"] == 10

    a_second_passes()
    say(scene, one, "training", percent=30)
    assert seen(scene)[one.username]["percent"] == 30


def test_that_training_begins_is_not_lost_for_coming_soon(make_scene, say, seen):
    scene = make_scene(participants=1)

    say(scene, scene.participants[0], "downloading")
    say(scene, scene.participants[0], "training")

    assert doing_of(seen, scene) == ["training"]


def test_a_report_that_comes_after_the_update_changes_nothing(make_scene, say, seen):
    scene = make_scene()
    scene.send_update(scene.participants[0])

    assert say(scene, scene.participants[0], "training", percent=99).status_code == 204
    assert say(scene, scene.participants[0], "failed", reason="late").status_code == 204
    assert doing_of(seen, scene) == ["uploaded", "assigned"]


@pytest.mark.parametrize("state", ["training", "failed"])
def test_a_report_on_a_round_that_is_over_is_refused(make_scene, work, say, state):
    scene = make_scene(participants=1, options={"tests": "never"}, target_num_updates=2)
    scene.send_update(scene.participants[0])
    work()

    answer = say(scene, scene.participants[0], state)
    assert answer.json()["code"] == "round_closed"
    assert say(scene, scene.participants[0], state, round=7).json()["code"] == "round_not_open"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("round", -1),
        ("round", "x"),
        ("state", "uploaded"),
        ("state", "late"),
        ("state", None),
        ("percent", 101),
        ("percent", -1),
        ("percent", True),
        ("reason", "x" * 2001),
        ("reason", 7),
        ("colour", "red"),
    ],
)
def test_a_report_that_makes_no_sense_is_refused_under_its_field(make_scene, as_, field, value):
    scene = make_scene(participants=1)
    body = {"round": 0, "state": "training", field: value}

    answer = as_(scene.participants[0]).send("POST", f"/api/trainings/{scene.id}/progress/", body)

    assert answer.status_code == 400
    assert list(answer.json()) == [field]


# Who was seen


def test_the_actor_sees_when_who_was_last_there_and_with_which_version(make_scene, caller, seen):
    from folkmoot.server.accounts.services import issue_token

    scene = make_scene()
    one, other = sorted(scene.participants, key=lambda each: each.username)
    before = timezone.now()

    caller(issue_token(one)[1], **{"User-Agent": "folkmoot/0.3.1 httpx"}).get("/api/notifications/")

    shown = seen(scene)
    assert shown[one.username]["client_version"] == "0.3.1"
    assert before.isoformat() < shown[one.username]["last_seen"]
    assert (shown[other.username]["last_seen"], shown[other.username]["client_version"]) == (None, "")


@pytest.mark.parametrize("header", ["curl/8.1", "folkmoot/" + "9" * 41, "folkmoot/<b>", "myfolkmoot/1.0", ""])
def test_a_version_is_that_of_our_client_or_none(header):
    assert presence.version_in(header) == ""


def test_polls_are_written_once_in_half_a_minute(make_user, as_, django_assert_num_queries, monkeypatch):
    user = make_user()
    as_(user).get("/api/notifications/?after=0")

    with django_assert_num_queries(1):  # the token, with its user
        as_(user).get("/api/notifications/?after=0")

    monkeypatch.setitem(presence._noted, user.pk, presence._noted[user.pk] - 30)
    seen_at = Presence.objects.get(user=user).seen_at
    as_(user).get("/api/notifications/?after=0")
    assert Presence.objects.get(user=user).seen_at > seen_at
