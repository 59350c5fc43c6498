"""The history of a training: complete, in order, in words; to each what it may know."""

from __future__ import annotations

from pathlib import Path

import pytest

from folkmoot.server.outbox.models import Event
from folkmoot.server.trainings import lifecycle
from folkmoot.server.trainings.chronicle import SENTENCES
from folkmoot.server.trainings.models import Update

pytestmark = pytest.mark.django_db

PAGE = Path(__file__).parents[2] / "docs" / "steering.md"


@pytest.fixture
def events(as_):
    def ask(scene, by=None, **query):
        answer = as_(by or scene.actor).get(f"/api/trainings/{scene.id}/events/", query)
        assert answer.status_code == 200, answer.content
        return answer.json()

    return ask


def test_a_training_tells_what_has_happened_in_order(make_scene, make_user, events, work):
    ada, one = make_user("ada"), make_user("north-clinic")
    scene = make_scene(actor=ada, participants=[one])
    scene.command("pause")
    scene.command("resume")
    scene.send_update(one)
    work()
    scene.report(one, loss=1)

    found = events(scene)

    assert [each["sentence"] for each in found] == [
        "Created by ada.",
        "Started by ada.",
        "Round 1 asks for updates.",
        "Paused by ada.",
        "Resumed by ada.",
        "north-clinic sent an update for round 1.",
        "Round 1 has all it needs and is aggregated.",
        "Checkpoint 1 is tested.",
        "Round 1 is closed.",
        "Completed.",
    ]
    assert [each["id"] for each in found] == sorted(each["id"] for each in found)
    assert (found[5]["kind"], found[5]["round"]) == ("update_received", 0)
    assert found[5]["facts"] == {"round": 0, "participant": str(one.pk)}


def test_one_asks_for_what_is_new(make_scene, events):
    scene = make_scene()
    first, second, third = events(scene)

    assert events(scene, after=first["id"]) == [second, third]
    assert events(scene, after=first["id"], limit=1) == [second]
    assert events(scene, kind="round_opened") == [third]


def test_a_round_that_is_opened_anew_says_which_attempt_it_is(make_scene, events):
    scene = make_scene(options={"round_retries": 1})
    scene.let_deadline_pass()
    scene.let_deadline_pass()
    scene.command("retry")

    found = events(scene, kind="round_opened")

    assert [each["facts"] for each in found] == [{"round": 0, "attempt": number} for number in (1, 2, 3)]
    assert [each["sentence"] for each in found] == [
        "Round 1 asks for updates.",
        "Round 1 asks for updates, attempt 2.",
        "Round 1 asks for updates, attempt 3.",
    ]


def test_a_round_that_waits_for_participants_once_more_says_so(make_scene, events):
    scene = make_scene(options={"min_available": 1, "round_retries": 1})
    scene.let_deadline_pass()

    found = events(scene, kind="round_waits")

    assert [each["facts"]["attempt"] for each in found] == [1, 2]
    assert found[-1]["sentence"] == "Round 1 waits, attempt 2."


def test_what_speaks_against_a_participant_is_for_it_and_the_actor(make_scene, events):
    scene = make_scene()
    one, other = scene.participants
    scene.send_update(one)
    scene.send_update(other)
    lifecycle.reject_update(Update.objects.get(participant=one), reason="damaged")

    def rejected(by):
        return [each["facts"] for each in events(scene, by=by) if each["kind"] == "update_rejected"]

    assert rejected(scene.actor) == rejected(one) == [{"round": 0, "participant": str(one.pk), "reason": "damaged"}]
    assert rejected(other) == []


def test_who_was_deleted_has_an_id_in_place_of_a_name(make_scene, events):
    scene = make_scene()
    one = scene.participants[0]
    pk = str(one.pk)
    scene.remove(one)
    one.delete()

    assert events(scene)[-1]["sentence"] == f"No longer taking part: {pk}."


def test_a_kind_without_words_of_its_own_has_a_sentence_too(make_scene, events):
    scene = make_scene()
    Event.objects.create(subject=scene.id, kind="shards_done", payload={"round": 0})
    Event.objects.create(subject=scene.id, kind="training_paused", payload={})

    assert [each["sentence"] for each in events(scene)][-2:] == ["Shards done.", "Paused by somebody."]


def test_a_long_history_takes_no_more_queries_than_a_short_one(make_scene, as_, django_assert_num_queries):
    scene = make_scene()
    caller, path = as_(scene.actor), f"/api/trainings/{scene.id}/events/"
    caller.get(path)
    with django_assert_num_queries(5):
        caller.get(path)
    for participant in scene.participants:
        scene.send_update(participant)
    with django_assert_num_queries(5):
        caller.get(path)


def test_the_page_names_every_kind():
    page = PAGE.read_text()

    assert [kind for kind in SENTENCES if f"`{kind}`" not in page] == []
