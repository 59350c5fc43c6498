"""Events: each is claimed by one, handled in order, tried again when its handler fails."""

from __future__ import annotations

import threading
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connections, transaction
from django.utils import timezone

from folkmoot.server import clock
from folkmoot.server.outbox import worker
from folkmoot.server.outbox.alarm import Alarm, alarms
from folkmoot.server.outbox.events import (
    MAX_ATTEMPTS,
    handle_next_event,
    handles,
    record,
    seconds_until_due,
)
from folkmoot.server.outbox.leases import claim, next_in_turn, release_leases
from folkmoot.server.outbox.models import Event, Lane

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


class Recorder:
    """Handles events of two kinds, one of which fails as often as it is told to."""

    def __init__(self):
        self.handled = []
        self.gave_up = []
        self.failures_left = 0
        self.while_handling = lambda event: None

    def handle(self, event):
        self.while_handling(event)
        if self.failures_left:
            self.failures_left -= 1
            raise RuntimeError("not today")
        self.handled.append(event.payload["name"])

    def give_up(self, event):
        self.gave_up.append((event.payload["name"], event.error))


@pytest.fixture
def recorder():
    """The kind "noted" is handled by this test alone."""
    recorder = Recorder()
    handles("noted", give_up=recorder.give_up)(recorder.handle)
    return recorder


def note(name, *, subject=None, lane=Lane.TRAININGS):
    return record(subject or uuid4(), "noted", {"name": name}, lane=lane)


def test_an_event_is_handled_once(recorder):
    note("one")

    assert [handle_next_event(Lane.TRAININGS) for _ in range(2)] == [True, False]
    assert recorder.handled == ["one"]


def test_an_event_is_found_by_one_query_however_many_subjects_are_busy(recorder, django_assert_num_queries):
    for _ in range(3):
        subject = uuid4()
        note("busy", subject=subject)
        claim(Lane.TRAININGS)
        note("behind", subject=subject)
    free, now = note("free"), clock.now()

    with django_assert_num_queries(1):
        assert next_in_turn(Lane.TRAININGS, now) == free


def test_an_event_stays_as_history(recorder):
    event = note("one")

    handle_next_event(Lane.TRAININGS)

    event.refresh_from_db()
    assert event.handled_at is not None
    assert event.leased_until is None


def test_the_oldest_event_comes_first(recorder, work):
    for name in ("one", "two", "three"):
        note(name)

    work()

    assert recorder.handled == ["one", "two", "three"]


def test_what_nobody_handles_is_history_alone(recorder):
    event = record(uuid4(), "unheard of")

    handle_next_event(Lane.TRAININGS)

    event.refresh_from_db()
    assert event.handled_at is not None


def test_an_event_that_is_being_handled_cannot_be_claimed(recorder):
    seen = []
    recorder.while_handling = lambda event: seen.append(handle_next_event(Lane.TRAININGS))
    note("one")

    handle_next_event(Lane.TRAININGS)

    assert seen == [False]
    assert recorder.handled == ["one"]


def test_a_lease_that_ran_out_lets_another_handle_the_event(recorder):
    note("one")
    Event.objects.update(leased_until=timezone.now() - timedelta(seconds=1), attempts=1)

    assert handle_next_event(Lane.TRAININGS)
    assert recorder.handled == ["one"]


def test_a_lease_that_runs_keeps_others_away(recorder):
    note("one")
    Event.objects.update(leased_until=timezone.now() + HOUR, attempts=1)

    assert not handle_next_event(Lane.TRAININGS)


def test_a_server_that_starts_takes_up_what_its_predecessor_left(recorder):
    note("one")
    Event.objects.update(leased_until=timezone.now() + HOUR, attempts=1)

    release_leases()

    assert handle_next_event(Lane.TRAININGS)


def test_events_of_one_subject_wait_for_each_other(recorder):
    subject = uuid4()
    first = note("first", subject=subject)
    note("second", subject=subject)
    note("other")
    Event.objects.filter(pk=first.pk).update(due_at=timezone.now() + HOUR)

    assert [handle_next_event(Lane.TRAININGS) for _ in range(2)] == [True, False]
    assert recorder.handled == ["other"]


def test_lanes_do_not_wait_for_each_other(recorder):
    subject = uuid4()
    first = note("training", subject=subject)
    note("push", subject=subject, lane=Lane.PUSHES)
    Event.objects.filter(pk=first.pk).update(due_at=timezone.now() + HOUR)

    assert not handle_next_event(Lane.TRAININGS)
    assert handle_next_event(Lane.PUSHES)
    assert recorder.handled == ["push"]


def test_an_event_that_fails_is_tried_again_with_growing_pauses(recorder, bring_forward, settings):
    settings.RETRY_SECONDS = 10
    recorder.failures_left = 3
    event = note("one")

    pauses = []
    for _ in range(3):
        handle_next_event(Lane.TRAININGS)
        event.refresh_from_db()
        pauses.append(round((event.due_at - timezone.now()).total_seconds()))
        assert not handle_next_event(Lane.TRAININGS)
        bring_forward()
    handle_next_event(Lane.TRAININGS)

    assert pauses == [10, 20, 40]
    assert recorder.handled == ["one"]
    event.refresh_from_db()
    assert event.error == ""


def test_no_pause_is_longer_than_five_minutes(recorder, settings):
    settings.RETRY_SECONDS = 1000
    recorder.failures_left = 1
    note("one")

    handle_next_event(Lane.TRAININGS)

    assert 299 < seconds_until_due(Lane.TRAININGS) <= 300


def test_an_event_that_always_fails_is_given_up(recorder, bring_forward):
    recorder.failures_left = 99
    event = note("one")

    for _ in range(MAX_ATTEMPTS + 1):
        handle_next_event(Lane.TRAININGS)
        bring_forward()

    assert recorder.failures_left == 99 - 5
    assert recorder.gave_up == [("one", "not today")]
    event.refresh_from_db()
    assert event.handled_at is not None


def test_a_training_whose_event_always_fails_ends_with_the_reason(make_scene, storage, bring_forward, as_):
    scene = make_scene(participants=1)
    scene.send_update(scene.participants[0])
    # Something that no handler can foresee: the folder for files on their way is no folder.
    incoming = storage.root / "incoming"
    incoming.rmdir()
    incoming.touch()

    for _ in range(MAX_ATTEMPTS + 1):
        while handle_next_event(Lane.TRAININGS):
            pass
        bring_forward()

    assert scene.state == "E"
    assert scene.shown["reason"].startswith("Round 1 could not be aggregated: ")


def test_seconds_until_due_is_none_without_events():
    assert seconds_until_due(Lane.TRAININGS) is None


def test_seconds_until_due_is_how_long_a_worker_may_sleep(recorder, settings):
    settings.RETRY_SECONDS = 60
    recorder.failures_left = 1
    subject = uuid4()
    note("fails", subject=subject)
    note("waits for it", subject=subject)
    assert seconds_until_due(Lane.TRAININGS) <= 0

    handle_next_event(Lane.TRAININGS)

    assert 59 < seconds_until_due(Lane.TRAININGS) <= 60


def test_a_worker_may_sleep_while_another_has_the_event():
    subject = uuid4()
    Event.objects.filter(pk=note("first", subject=subject).pk).update(leased_until=timezone.now() + HOUR)
    note("second", subject=subject)

    assert 3590 < seconds_until_due(Lane.TRAININGS) <= 3600


@pytest.mark.django_db(transaction=True)
def test_of_two_workers_one_has_the_event(recorder):
    """Both look at the same moment; a second event shows that the loser goes on with something else."""
    for number in range(20):
        note(number)
    together = threading.Barrier(2)

    def work():
        together.wait()
        while handle_next_event(Lane.TRAININGS):
            pass
        connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(recorder.handled) == list(range(20))


# The alarm clock


def test_a_ring_before_the_wait_is_not_missed():
    alarm = Alarm()
    rings = alarm.rings
    alarm.ring()

    alarm.wait(since=rings, timeout=60)


def test_a_ring_ends_the_wait():
    alarm = Alarm()
    thread = threading.Thread(target=alarm.wait, kwargs={"since": alarm.rings, "timeout": 60})
    thread.start()

    alarm.ring()

    thread.join(timeout=30)
    assert not thread.is_alive()


@pytest.mark.django_db(transaction=True)
def test_a_commit_rings_the_alarm_and_a_rollback_does_not(recorder):
    alarm = alarms[Lane.TRAININGS]
    before = alarm.rings
    with transaction.atomic():
        note("never")
        transaction.set_rollback(True)
    assert alarm.rings == before

    note("one")
    assert alarm.rings == before + 1


# Sweeps


@pytest.fixture
def sweeps(monkeypatch, settings):
    """A function that has those functions called, and no others, the way that the hub's are."""
    monkeypatch.setattr(worker, "_sweeps", [])
    settings.SWEEP_SECONDS = settings.ORPHAN_GRACE_SECONDS = 0.01
    sweepers = []

    def start(*, often=(), rarely=(), on_each_machine=(), of_machine=False):
        for function in often:
            worker.sweep(every="SWEEP_SECONDS")(function)
        for function in rarely:
            worker.sweep(every="ORPHAN_GRACE_SECONDS")(function)
        for function in on_each_machine:
            worker.sweep(every="ORPHAN_GRACE_SECONDS", on_each_machine=True)(function)
        sweepers.append(worker.Sweeper(of_machine=of_machine))
        sweepers[-1].start()

    yield start
    for sweeper in sweepers:
        sweeper.stop(grace=30)


def test_deadlines_are_kept_while_all_files_are_read(sweeps):
    reading, read, called = threading.Event(), threading.Event(), threading.Event()

    def read_all_files():
        reading.set()
        read.wait(30)

    def keep_deadlines():
        if reading.is_set():
            called.set()

    sweeps(often=[keep_deadlines], rarely=[read_all_files])

    was_called = called.wait(5)
    read.set()
    assert was_called


def test_where_another_process_sweeps_for_the_hub_a_machine_minds_its_own_files(sweeps):
    minded, others = threading.Event(), threading.Event()

    sweeps(often=[others.set], rarely=[others.set], on_each_machine=[minded.set], of_machine=True)

    assert minded.wait(30)
    assert not others.is_set()
