"""An event belongs to whoever claimed it last: others change nothing, and those who end without a word are counted."""

from __future__ import annotations

import threading
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connections, transaction

from folkmoot.server import clock
from folkmoot.server.outbox.events import MAX_INTERRUPTIONS, handle_next_event, handles, record
from folkmoot.server.outbox.leases import claim, hold, release_leases
from folkmoot.server.outbox.models import Event, Lane

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)


class Program:
    """What a test wants done with events of a kind of its own."""

    def __init__(self):
        self.gave_up = []
        self.do = lambda event: None

    def handle(self, event):
        self.do(event)

    def give_up(self, event):
        self.gave_up.append(event.error)


@pytest.fixture
def program():
    program = Program()
    handles("leased", give_up=program.give_up)(program.handle)
    return program


@pytest.fixture
def event(program):
    return record(uuid4(), "leased")


def end_without_a_word():
    """As a worker does that is killed, or frozen for longer than its lease."""
    assert claim(Lane.TRAININGS)
    Event.objects.update(leased_until=clock.now() - SECOND)


def overtake(event):
    """Let the lease run out, and another claim the event."""
    Event.objects.update(leased_until=clock.now() - SECOND)
    return claim(Lane.TRAININGS)


def test_who_was_overtaken_does_not_mark_the_event_as_handled(program, event):
    program.do = overtake

    handle_next_event(Lane.TRAININGS)

    event.refresh_from_db()
    assert event.handled_at is None
    assert event.leased_until > clock.now()


def test_the_failure_of_who_was_overtaken_is_none_of_the_event(program, event):
    def fail(mine):
        overtake(mine)
        raise RuntimeError("too late")

    program.do = fail

    handle_next_event(Lane.TRAININGS)

    event.refresh_from_db()
    assert (event.failures, event.error) == (0, "")
    assert event.leased_until > clock.now()


def test_the_word_of_who_was_overtaken_ends_no_training(make_scene):
    from folkmoot.server.trainings.handlers import fail_training

    scene = make_scene()
    late = record(scene.id, "round_full", {"round": 0})
    mine = claim(Lane.TRAININGS)
    assert mine == late
    overtake(mine)

    fail_training(mine)

    assert scene.state == "O"


def test_a_held_event_cannot_be_claimed_before_the_holder_commits(event):
    mine = claim(Lane.TRAININGS)

    with transaction.atomic():
        assert hold(mine)
    overtake(mine)
    with transaction.atomic():
        assert not hold(mine)


def test_a_kill_is_no_failure(program, event):
    for _ in range(MAX_INTERRUPTIONS):
        end_without_a_word()

    handle_next_event(Lane.TRAININGS)

    event.refresh_from_db()
    assert event.handled_at is not None
    assert (event.attempts, event.failures, program.gave_up) == (MAX_INTERRUPTIONS + 1, 0, [])


def test_an_event_that_always_ends_its_process_is_given_up_with_a_sentence(program, event):
    for _ in range(MAX_INTERRUPTIONS + 1):
        end_without_a_word()

    handle_next_event(Lane.TRAININGS)

    assert program.gave_up == ["the server ended 11 times in a row before it was done"]


def test_a_restart_of_an_embedded_server_counts_what_it_interrupted(program, event):
    claim(Lane.TRAININGS)

    release_leases()
    handle_next_event(Lane.TRAININGS)

    event.refresh_from_db()
    assert event.interruptions == 1


def test_a_worker_that_answers_ends_the_row_of_interruptions(program, event, bring_forward):
    def fail(event):
        raise RuntimeError("not today")

    end_without_a_word()
    program.do = fail

    handle_next_event(Lane.TRAININGS)

    event.refresh_from_db()
    assert (event.failures, event.interruptions) == (1, 0)


@pytest.mark.django_db(transaction=True)
def test_a_lease_is_renewed_while_the_work_goes_on(program, event, settings):
    settings.LEASE_SECONDS = 0.3
    begun, over = threading.Event(), threading.Event()

    def work_long(event):
        begun.set()
        over.wait(30)

    program.do = work_long

    def work():
        handle_next_event(Lane.TRAININGS)
        connections.close_all()

    worker = threading.Thread(target=work)
    worker.start()
    begun.wait(30)
    first_lease = Event.objects.get().leased_until
    while clock.now() < first_lease + SECOND:
        assert claim(Lane.TRAININGS) is None
    over.set()
    worker.join(30)

    event.refresh_from_db()
    assert (event.attempts, event.interruptions) == (1, 0)
    assert event.handled_at is not None
