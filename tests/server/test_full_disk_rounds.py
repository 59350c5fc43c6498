"""Rounds that find no space for their checkpoint, or files that cannot be read: they wait, say so, and go on."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from folkmoot.server.outbox.events import MAX_ATTEMPTS
from folkmoot.server.outbox.models import Event
from folkmoot.server.registry.models import Checkpoint

pytestmark = pytest.mark.django_db

VALUES = 1_000_000
"""Of float32: a file that is larger than the database, which must not meet the limit."""
HOURS_24 = timedelta(hours=24)


@contextmanager
def no_space_for_files_of(num_bytes):
    """A limit on the size of files stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def full_disk():
    with no_space_for_files_of(3 * VALUES):
        yield


@pytest.fixture
def full_round(make_scene, make_model, make_user, tensors_file):
    """A function: a training whose updates are in, and wait to be aggregated."""

    def make(**fields):
        actor = make_user()
        model = make_model(actor, w=np.zeros(VALUES, "f4"))
        fields = {"options": {"tests": "never"}} | fields
        scene = make_scene(actor=actor, model=model, target_num_updates=2, **fields)
        for number, participant in enumerate(scene.participants, start=1):
            file = tensors_file(w=np.full(VALUES, number, "f4"))
            assert scene.send_update(participant, file=file).status_code == 201
        return scene

    return make


@pytest.fixture
def keep_trying(work, bring_forward):
    """A function: time passes, and the worker tries so many times."""

    def run(times):
        for _ in range(times):
            bring_forward()
            work()

    return run


def event():
    return Event.objects.get(kind="round_full")


def leftovers(storage):
    return list((storage.root / "incoming").iterdir())


def test_the_round_waits_and_says_for_what(full_round, work, storage):
    scene = full_round()

    with full_disk():
        work()

    assert (scene.state, scene.round_states) == ("O", ["AGGREGATING"])
    assert scene.shown["reason"] == "no space left to write checkpoint 1"
    assert leftovers(storage) == []
    assert Checkpoint.objects.filter(model=scene.model_id).count() == 1


def test_it_is_tried_again_more_often_than_a_failure_is(full_round, work, keep_trying):
    scene = full_round()

    with full_disk():
        keep_trying(2 * MAX_ATTEMPTS)

    assert (scene.state, scene.round_states) == ("O", ["AGGREGATING"])
    assert event().failures == 0


def test_with_space_the_round_goes_on_and_the_reason_is_gone(full_round, work, keep_trying):
    scene = full_round()
    with full_disk():
        keep_trying(3)

    keep_trying(1)

    assert scene.round_states == ["CLOSED", "OPEN"]
    assert scene.shown["reason"] == ""
    assert Checkpoint.objects.filter(model=scene.model_id).count() == 2


def test_the_history_has_the_wait_once(full_round, keep_trying):
    scene = full_round()
    with full_disk():
        keep_trying(3)

    noted = Event.objects.get(subject=scene.id, kind="round_waits").payload
    assert noted == {"round": 0, "reason": "no space left to write checkpoint 1"}


def test_the_pauses_grow_and_have_a_limit(full_round, work, settings):
    settings.RETRY_SECONDS = 10
    full_round()
    pauses = []

    with full_disk():
        for waited in (0, 10, 40, 1000):
            Event.objects.filter(kind="round_full").update(
                due_at=timezone.now(), waits_since=timezone.now() - timedelta(seconds=waited)
            )
            work()
            pauses.append((event().due_at - timezone.now()).total_seconds())

    assert pauses == pytest.approx([10, 10, 40, 300], abs=5)


def test_after_a_day_the_training_ends_with_the_reason_and_keeps_its_updates(full_round, work, bring_forward, storage):
    scene = full_round()
    with full_disk():
        work()
        Event.objects.filter(kind="round_full").update(waits_since=timezone.now() - HOURS_24)
        bring_forward()
        work()

    assert (scene.state, scene.round_states) == ("E", ["FAILED"])
    sentence = "Round 1 could not be aggregated: no space left to write checkpoint 1"
    assert scene.shown["reason"] == sentence
    updates = list(scene.training.rounds.get().updates.all())
    assert [update.status for update in updates] == ["waiting", "waiting"]
    assert all(storage.path(update.sha256).exists() for update in updates)


def test_how_long_is_a_setting(full_round, work, settings, bring_forward):
    settings.STORAGE_WAIT = 60
    scene = full_round()
    with full_disk():
        work()
        Event.objects.filter(kind="round_full").update(waits_since=timezone.now() - timedelta(seconds=61))
        bring_forward()
        work()

    assert scene.state == "E"


def test_a_state_that_finds_no_space_is_waited_for_as_well(full_round, work, keep_trying, storage):
    # Both moments of Adam are in one file: twice as large as the checkpoint, which finds its space.
    scene = full_round(aggregation_method="FedAdam")

    with no_space_for_files_of(6 * VALUES):
        work()
        assert scene.shown["reason"] == "no space left to write checkpoint 1"
        assert leftovers(storage) == []
    keep_trying(1)

    assert scene.round_states == ["CLOSED", "OPEN"]
    assert storage.path(Checkpoint.objects.get(round=1).state_sha256).exists()


def test_an_update_that_cannot_be_read_for_the_moment_is_waited_for(full_round, work, keep_trying, storage):
    scene = full_round()
    update = scene.training.rounds.get().updates.first()
    path, aside = storage.path(update.sha256), storage.root / "aside"
    # What is in its place can be opened, and not be read.
    path.rename(aside)
    path.mkdir()

    keep_trying(2 * MAX_ATTEMPTS)
    assert scene.round_states == ["AGGREGATING"]
    assert scene.shown["reason"] == f"update {update.participant_id} cannot be read: Is a directory"
    path.rmdir()
    aside.rename(path)
    keep_trying(1)

    assert scene.round_states == ["CLOSED", "OPEN"]
    assert scene.shown["reason"] == ""
