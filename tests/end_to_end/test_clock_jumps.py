"""R17: the time of day jumps by an hour, forward and back, within rounds that run; none ends or waits because of it."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx2
import pytest
from harness import play_round, wait_until

from wall_clock import WallClock

HOUR = 3600
SOON = 3
"""The deadline, in seconds, of those rounds that end by theirs."""


@pytest.fixture
def new_clock(tmp_path):
    """A function from a name to a time of day."""

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        return WallClock(folder)

    return make


def test_an_embedded_hub_keeps_its_deadlines_whatever_the_time_of_day(world, new_clock, undisturbed):
    clock = new_clock("clock")
    world.server.start(**clock.environment)

    rounds_through_jumps(world, clock.jump_to, undisturbed)


def test_many_processes_whose_clocks_jump_apart_keep_their_deadlines(idle_production, new_clock, undisturbed):
    production = idle_production
    of_web, of_others = new_clock("web"), new_clock("others")
    production.server.launch(**of_web.environment)
    production.worker.launch(**of_others.environment)
    production.beat.launch(**of_others.environment)
    for process in production.processes:
        process.wait_until_ready()

    def jump_to(seconds):
        of_web.jump_to(seconds)
        of_others.jump_to(-seconds)

    rounds_through_jumps(production, jump_to, undisturbed)


def test_an_embedded_hub_started_at_another_time_of_day_loses_nothing(world, new_clock):
    clock = new_clock("clock")
    world.server.start(**clock.environment)
    ann, ben = world.participants(2)
    training_id = world.started([ann, ben], rounds=2, min_updates=1, round_timeout=HOUR // 2, tests="never")
    play_round(world, [ann], training_id, 0)

    world.server.kill()
    clock.jump_to(HOUR)
    world.server.start(**clock.environment, fault="round_full.claimed:2")
    world.wait_for_round(training_id, 0, "CLOSED")
    with contextlib.suppress(httpx2.TransportError):
        play_round(world, [ann, ben], training_id, 1)
    world.server.wait_for_death()
    clock.jump_to(0)
    world.server.start(**clock.environment)
    training = world.wait_for_end(training_id)

    assert [each["arrived"] for each in training["rounds"]] == [[ann.id], sorted([ann.id, ben.id])]


def rounds_through_jumps(world, jump_to, undisturbed):
    """Of two trainings at once one waits in each round for ben, half an hour if need be; the other ends without him."""
    ann, ben = world.participants(2)
    options = {"rounds": 2, "min_updates": 1, "tests": "never"}
    patient = world.create_training([ann, ben], round_timeout=HOUR // 2, **options)
    punctual = world.create_training([ann, ben], round_timeout=SOON, **options)
    for each in (patient, punctual):
        world.start(each)
    for number, seconds in enumerate((HOUR, 0)):
        for each in (punctual, patient):
            world.wait_for_round(each, number)
            play_round(world, [ann], each, number)
        jump_to(seconds)
        wait_until(lambda ahead=seconds: is_ahead(world, ahead), "the server's time of day to have jumped")
        world.wait_for_round(punctual, number, "CLOSED")
        assert world.round_state(patient, number) == "OPEN"
        play_round(world, [ben], patient, number)

    assert_no_round_seems_long(world.wait_for_end(patient))
    assert_no_round_seems_long(world.wait_for_end(punctual))
    assert world.weights(patient)[1] == undisturbed(2, 2)
    assert world.weights(punctual)[1] == undisturbed(1, 2)


def is_ahead(world, seconds):
    served = parsedate_to_datetime(world.call(None, "GET", "/healthz").headers["Date"])
    return abs(served - datetime.now(UTC) - timedelta(seconds=seconds)) < timedelta(seconds=60)


def assert_no_round_seems_long(training):
    for each in training["rounds"]:
        opened, aggregated, closed = (
            datetime.fromisoformat(each[name]) for name in ("opened_at", "aggregated_at", "closed_at")
        )
        assert opened <= aggregated <= closed < opened + timedelta(seconds=60), each
