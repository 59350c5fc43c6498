"""The sentence that says what a training is doing: one test for each situation that it may be in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from folkmoot.protocol.states import Doing, RoundState, TrainingState
from folkmoot.server.trainings import lifecycle
from folkmoot.server.trainings.explaining import Awaited, Facts, Step, code_of, sentence_of

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def awaited(username, doing=Doing.ASSIGNED, *, percent=None, minutes=None):
    last_seen = None if minutes is None else NOON - timedelta(minutes=minutes)
    return Awaited(UUID(int=0), username, doing, percent, last_seen)


def under_way(round_state, state="O", **step):
    closes_at = step.pop("closes_at", NOON + timedelta(hours=2, minutes=5))
    reason = step.pop("reason", "")
    stops = step.pop("stops_after_round", False)
    return Facts(
        NOON,
        TrainingState(state),
        10,
        reason=reason,
        stops_after_round=stops,
        step=Step(3, RoundState(round_state), closes_at, **step),
    )


BUSY = awaited("north-clinic", Doing.TRAINING, percent=40.4, minutes=3)
GONE = awaited("lab-b", minutes=14)
MANY = [awaited(f"site-{number}") for number in range(17)]
STORAGE = "no space left to write checkpoint 3"

SITUATIONS = {
    "not_started": (
        Facts(NOON, TrainingState.INITIAL, 10, num_participants=1),
        "not_started",
        "Not started: 1 participant so far, 10 rounds to go.",
    ),
    "waiting for participants": (
        under_way("WAITING", wanted=3, arrived=1),
        "waiting_for_participants",
        "Round 3 of 10: waiting for 2 more of 3 participants to come online (1 is online); "
        "at 14:05 UTC is tried again.",
    ),
    "waiting, with names": (
        under_way("WAITING", wanted=3, awaited=[replace(GONE, doing=None)], unnamed=4),
        "waiting_for_participants",
        "Round 3 of 10: waiting for 3 more of 3 participants to come online (nobody is online), "
        "lab-b (last seen 14 minutes ago) and 4 more; at 14:05 UTC is tried again.",
    ),
    "waiting for the last time": (
        under_way("WAITING", wanted=3, arrived=1, is_last_attempt=True),
        "waiting_for_participants",
        "Round 3 of 10: waiting for 2 more of 3 participants to come online (1 is online); "
        "at 14:05 UTC the training ends with an error.",
    ),
    "open, with a quorum": (
        under_way("OPEN", wanted=5, arrived=3, awaited=[GONE, BUSY], least=3),
        "collecting",
        "Round 3 of 10: waiting for 2 of 5 updates, lab-b (last seen 14 minutes ago), north-clinic (training, 40 %); "
        "closes at 14:05 UTC with at least 3.",
    ),
    "open, where one has declined": (
        under_way("OPEN", wanted=5, arrived=3, awaited=[GONE], least=3),
        "collecting",
        "Round 3 of 10: waiting for 1 of 5 updates, lab-b (last seen 14 minutes ago); "
        "closes at 14:05 UTC with at least 3.",
    ),
    "open, until another day": (
        under_way("OPEN", wanted=1, awaited=[awaited("a", minutes=1)], closes_at=NOON + timedelta(days=1)),
        "collecting",
        "Round 3 of 10: waiting for 1 of 1 update, a (online); at 12:00 UTC on 2026-03-03 is tried again.",
    ),
    "open, many awaited": (
        under_way("OPEN", wanted=17, awaited=MANY, least=1),
        "collecting",
        "Round 3 of 10: waiting for 17 of 17 updates, site-0 (never seen), site-1 (never seen), site-2 (never seen), "
        "site-3 (never seen), site-4 (never seen) and 12 more; closes at 14:05 UTC with at least 1.",
    ),
    "open, nobody left": (
        under_way("OPEN", wanted=5, arrived=2, least=3),
        "collecting",
        "Round 3 of 10: 2 of 5 updates came, and nobody is left to send another; closes at 14:05 UTC with at least 3.",
    ),
    "buffered": (
        under_way("OPEN", wanted=4, arrived=3, is_buffered=True),
        "collecting",
        "Round 3 of 10: waiting for 1 of 4 updates, of whoever sends them; at 14:05 UTC is tried again.",
    ),
    "aggregating": (under_way("AGGREGATING"), "aggregating", "Round 3 of 10: making the next model."),
    "waiting for storage": (
        under_way("AGGREGATING", reason=STORAGE),
        "waiting_for_storage",
        "Round 3 of 10: waiting for storage: no space left to write checkpoint 3.",
    ),
    "moments": (
        under_way("SWAG", state="S", wanted=2, arrived=1, awaited=[awaited("a", minutes=200)]),
        "collecting_moments",
        "Round 3 of 10: waiting for 1 of 2 answers with moments, a (last seen 3 hours ago); "
        "goes on without them at 14:05 UTC.",
    ),
    "merging": (under_way("MERGING"), "merging_moments", "Round 3 of 10: merging the moments of the next model."),
    "testing": (
        under_way("TESTING", wanted=2, arrived=1, awaited=[awaited("a", minutes=2)], stops_after_round=True),
        "testing",
        "Round 3 of 10: waiting for 1 of 2 answers to the test, a (last seen 2 minutes ago); "
        "closes without them at 14:05 UTC. Stops at the end of this round.",
    ),
    "paused": (
        under_way("OPEN", state="P"),
        "paused",
        "Paused at round 3 of 10; its deadline stands still until it is resumed.",
    ),
    "stopped": (
        under_way("FAILED", state="X", reason="Stopped on request."),
        "stopped",
        "Stopped: Stopped on request.",
    ),
    "error": (
        under_way("FAILED", state="E", reason="Round 2 got 1 updates in time; missing: lab-b."),
        "error",
        "Ended with an error: Round 2 got 1 updates in time; missing: lab-b.",
    ),
    "completed": (under_way("CLOSED", state="C"), "completed", "Completed, after 10 rounds."),
    "completed early": (
        under_way("CLOSED", state="C", reason="accuracy reached 0.9."),
        "completed",
        "Completed: accuracy reached 0.9.",
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_each_situation_has_its_sentence(situation):
    facts, code, sentence = SITUATIONS[situation]

    assert sentence_of(facts) == sentence
    assert code_of(facts) == code


@pytest.mark.parametrize("state", list(TrainingState))
@pytest.mark.parametrize("round_state", [None, *RoundState])
def test_no_situation_is_without_words(state, round_state):
    step = Step(1, round_state, NOON) if round_state else None

    facts = Facts(NOON, state, 1, step=step)

    assert sentence_of(facts).endswith(".")
    assert code_of(facts)


# Of a real training


@pytest.fixture
def explain(as_):
    return lambda scene, by=None: as_(by or scene.actor).get(f"/api/trainings/{scene.id}/explain/").json()


@pytest.mark.django_db
def test_the_hub_explains_whom_a_round_waits_for(make_scene, explain, as_):
    scene = make_scene(target_num_updates=2, options={"min_updates": 1, "tests": "never"})
    one, other = scene.participants
    scene.send_update(one)
    body = {"round": 0, "state": "training", "percent": 40}
    as_(other).send("POST", f"/api/trainings/{scene.id}/progress/", body)

    shown = explain(scene)

    closes = f"{scene.training.rounds.get().closes_at:%H:%M UTC on %Y-%m-%d}"
    who = f"{other.username} (training, 40 %)"
    sentence = f"Round 1 of 2: waiting for 1 of 2 updates, {who}; closes at {closes} with at least 1."
    assert shown["sentence"] == scene.shown["explanation"] == sentence
    assert (shown["code"], shown["round"], shown["rounds"]) == ("collecting", 1, 2)
    assert (shown["wanted"], shown["arrived"]) == (2, 1)
    assert [(each["username"], each["state"], each["percent"]) for each in shown["waiting_for"]] == [
        (other.username, "training", 40)
    ]


@pytest.mark.django_db
def test_the_hub_explains_each_step_up_to_the_end(make_scene, explain, work):
    scene = make_scene(started=False, participants=1, target_num_updates=1)
    (one,) = scene.participants
    codes = [explain(scene)["code"]]

    lifecycle.start(scene.training, by=scene.actor)
    codes.append(explain(scene)["code"])
    scene.send_update(one)
    codes.append(explain(scene)["code"])
    work()
    codes.append(explain(scene)["code"])
    assert [each["username"] for each in explain(scene)["waiting_for"]] == [one.username]
    scene.report(one, loss=1)
    codes.append(explain(scene)["code"])

    assert codes == ["not_started", "collecting", "aggregating", "testing", "completed"]


@pytest.mark.django_db
def test_the_hub_explains_how_many_are_online_and_to_the_actor_who_is_not(make_scene, explain, as_):
    scene = make_scene(participants=3, options={"min_available": 2})
    one, other, third = scene.participants
    as_(one).get("/api/notifications/")

    shown, told_to_other = explain(scene), explain(scene, by=other)

    start = "Round 1 of 1: waiting for 1 more of 2 participants to come online (1 is online), "
    assert shown["code"] == "waiting_for_participants"
    assert (shown["wanted"], shown["arrived"]) == (2, 1)
    assert shown["sentence"].startswith(f"{start}{other.username} (never seen), {third.username} (never seen); at ")
    assert told_to_other["sentence"].startswith(f"{start}{other.username} (never seen) and 1 more; at ")
    waiting_for = [(each["username"], each["state"]) for each in shown["waiting_for"]]
    assert waiting_for == [(other.username, None), (third.username, None)]


def told(shown):
    """The beginning of the sentence, and the figures that it goes by."""
    names = [each["username"] for each in shown["waiting_for"]]
    return shown["sentence"].partition(" (")[0], (shown["wanted"], shown["arrived"], names)


@pytest.mark.django_db
def test_what_was_sent_by_who_has_left_is_no_update_that_others_owe(make_scene, explain):
    scene = make_scene(participants=3)
    one, other, third = scene.participants
    scene.send_update(one)
    scene.remove(one)

    sentence = f"Round 1 of 1: waiting for 2 of 3 updates, {other.username}"
    assert told(explain(scene)) == (sentence, (3, 1, [other.username, third.username]))


@pytest.mark.django_db
def test_an_update_is_not_awaited_of_who_declines(make_scene, explain, as_):
    scene = make_scene(participants=3, options={"min_updates": 2})
    one, other, third = scene.participants
    scene.send_update(one)
    as_(other).send("POST", f"/api/trainings/{scene.id}/progress/", {"round": 0, "state": "declined", "reason": "no"})

    sentence = f"Round 1 of 1: waiting for 1 of 3 updates, {third.username}"
    assert told(explain(scene)) == (sentence, (3, 1, [third.username]))


@pytest.mark.django_db
def test_a_test_counts_neither_who_is_excused_nor_the_answer_of_who_has_left(make_scene, explain, work):
    scene = make_scene(participants=4)
    one, other, third, fourth = scene.participants
    for each in scene.participants:
        scene.send_update(each)
    work()
    scene.report(one, loss=1)
    scene.remove(one)
    lifecycle.excuse_from_test(scene.id, other.pk, round=1)

    sentence = f"Round 1 of 1: waiting for 2 of 2 answers to the test, {third.username}"
    assert told(explain(scene)) == (sentence, (2, 0, [third.username, fourth.username]))


@pytest.mark.django_db
def test_moments_are_not_counted_of_who_is_excused_from_sending_any(make_scene, explain, work):
    scene = make_scene(participants=3, uncertainty_method="SWAG")
    one, other, third = scene.participants
    for each in scene.participants:
        scene.send_update(each)
    work()
    lifecycle.excuse_from_swag(scene.id, one, round=1)

    sentence = f"Round 1 of 1: waiting for 2 of 2 answers with moments, {other.username}"
    assert told(explain(scene)) == (sentence, (2, 0, [other.username, third.username]))


@pytest.mark.django_db
def test_an_error_is_explained_by_its_reason(make_scene, explain):
    scene = make_scene(participants=1, options={"round_retries": 0})
    scene.let_deadline_pass()

    shown = explain(scene)

    assert (shown["code"], shown["reason_code"]) == ("error", "quorum")
    assert shown["sentence"] == f"Ended with an error: {scene.shown['reason']}"
    assert shown["closes_at"] is None


def test_participants_are_told_how_many_others_are_awaited_and_not_what_they_are_doing(make_scene, as_):
    scene = make_scene(participants=3)
    me, *others = scene.participants

    shown = as_(me).get(f"/api/trainings/{scene.id}/explain/").json()
    rounds = as_(me).get(f"/api/trainings/{scene.id}/rounds/").json()

    assert f"waiting for 3 of 3 updates, {me.username} (" in shown["sentence"]
    assert ") and 2 more; " in shown["sentence"]
    assert as_(me).get(f"/api/trainings/{scene.id}/").json()["explanation"] == shown["sentence"]
    assert [each["id"] for each in shown["waiting_for"]] == [str(me.pk)]
    assert [each["id"] for each in rounds[0]["missing"]] == [str(me.pk)]
    assert not any(other.username in shown["sentence"] for other in others)
