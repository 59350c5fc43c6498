"""Rounds that open only once enough participants are online."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from folkmoot.server.notifications import presence
from folkmoot.server.notifications.models import Notification, Presence, Push
from folkmoot.server.trainings import lifecycle, sweeps

pytestmark = pytest.mark.django_db


@pytest.fixture
def comes_online(as_, work):
    """A user asks for work, and the hub looks whether that is enough."""

    def come(*users):
        for user in users:
            presence._noted.pop(user.pk, None)
            as_(user).get("/api/notifications/")
        sweeps.open_rounds_that_wait()
        work()

    return come


def goes_offline(*users, seconds=91):
    Presence.objects.filter(user__in=users).update(seen_at=timezone.now() - timedelta(seconds=seconds))


def test_a_round_opens_once_enough_are_online(make_scene, comes_online):
    scene = make_scene(participants=3, options={"min_available": 2})
    one, other, third = scene.participants
    assert scene.round_states == ["WAITING"]

    comes_online(one)
    assert scene.round_states == ["WAITING"]
    assert scene.asked_of(one) == []

    comes_online(other)
    assert scene.round_states == ["OPEN"]
    assert scene.asked_of(third) == ["UPDATE_ROUND_START"]


def test_who_was_seen_too_long_ago_is_not_online(make_scene, comes_online):
    scene = make_scene(options={"min_available": 2})
    one, other = scene.participants

    comes_online(one)
    goes_offline(one)
    comes_online(other)
    assert scene.round_states == ["WAITING"]

    comes_online(one)
    assert scene.round_states == ["OPEN"]


def test_who_sends_an_update_is_online_for_the_next_round(make_scene, comes_online, work):
    scene = make_scene(target_num_updates=2, options={"tests": "never", "min_available": 2})
    comes_online(*scene.participants)
    goes_offline(*scene.participants)
    presence._noted.clear()

    for participant in scene.participants:
        scene.send_update(participant)
    work()

    assert scene.round_states == ["CLOSED", "OPEN"]


@pytest.mark.parametrize(
    ("push", "state"),
    [
        (None, "OPEN"),
        (Push.PENDING, "OPEN"),
        (Push.ACCEPTED, "OPEN"),
        (Push.UNREACHABLE, "WAITING"),
        (Push.REJECTED, "WAITING"),
        (Push.FORBIDDEN, "WAITING"),
    ],
)
def test_an_endpoint_is_online_while_it_takes_what_is_pushed(make_scene, make_user, push, state):
    user = make_user(message_endpoint="http://127.0.0.1:9/")
    if push:
        body = {"recipient": user, "type": "TRAINING_FINISHED", "training_id": user.pk, "body": {}}
        Notification.objects.create(number=1, push=push, **body)

    scene = make_scene(participants=[user], options={"min_available": 1})

    assert scene.round_states == [state]


def test_a_round_that_nobody_comes_to_is_tried_again_and_then_given_up(make_scene, comes_online):
    scene = make_scene(options={"min_available": 2, "round_retries": 1})
    one, other = scene.participants
    comes_online(one)

    scene.let_deadline_pass()
    assert (scene.round_states, scene.shown["rounds"][0]["attempt"]) == (["WAITING"], 2)

    late = scene.training.rounds.get()
    Presence.objects.update(seen_at=late.closes_at)
    scene.let_deadline_pass()
    assert (scene.state, scene.round_states) == ("E", ["FAILED"])
    assert scene.shown["reason"] == (
        f"Round 1 waited in vain for 1 more of 2 participants to come online; not online: {other.username}."
    )


def test_a_round_that_is_tried_again_waits_for_them_again(make_scene, comes_online, work):
    scene = make_scene(options={"min_available": 2, "round_retries": 0})
    scene.let_deadline_pass()
    assert scene.round_states == ["FAILED"]

    scene.command("retry")
    work()

    assert (scene.state, scene.round_states) == ("O", ["WAITING"])
    comes_online(*scene.participants)
    assert scene.round_states == ["OPEN"]


def test_a_waiting_round_takes_no_update_yet(make_scene):
    scene = make_scene(options={"min_available": 1})

    assert scene.send_update(scene.participants[0]).json()["code"] == "round_not_open"


def test_a_training_whose_waiting_round_is_left_by_all_ends(make_scene):
    scene = make_scene(options={"min_available": 1})

    scene.remove(*scene.participants)

    assert (scene.state, scene.shown["reason"]) == ("E", "No participants are left for round 1.")


def test_nothing_opens_in_a_pause(make_scene, comes_online):
    scene = make_scene(options={"min_available": 1})
    lifecycle.pause(scene.training, by=scene.actor)

    comes_online(scene.participants[0])
    assert scene.round_states == ["WAITING"]

    lifecycle.resume(scene.training, by=scene.actor)
    comes_online(scene.participants[0])
    assert scene.round_states == ["OPEN"]


def test_a_training_does_not_start_with_fewer_participants_than_must_be_online(make_scene, as_):
    scene = make_scene(started=False, options={"min_available": 3})

    answer = as_(scene.actor).post(f"/api/trainings/{scene.id}/start/")

    assert answer.status_code == 400
    assert answer.json() == {"detail": "options.min_available is 3, and 2 take part!", "code": "too_few_participants"}


def test_without_the_option_nobody_has_to_be_online(make_scene):
    assert make_scene().round_states == ["OPEN"]


def test_the_hub_says_how_long_a_round_waits_where_the_training_does_not(make_scene, settings):
    settings.ROUND_TIMEOUT = 60
    scene = make_scene()
    own = make_scene(options={"round_timeout": 5})

    for each, seconds in ((scene, 60), (own, 5)):
        (current,) = each.training.rounds.all()
        assert round((current.closes_at - current.opened_at).total_seconds()) == seconds
