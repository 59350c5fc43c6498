"""R1, R2 and R27 at random: kills at random instants, and for as long as one likes whatever else can happen."""

from __future__ import annotations

import logging
import os
import time
from functools import partial

import pytest
from clusters import OF_A_LOST_DATABASE
from disturbing import as_if_nothing_had_been, cut_off_from_postgres, flush_broker, freeze, kill
from harness import Worker, at_once, wait_until

logger = logging.getLogger(__name__)
SECONDS = float(os.environ.get("FOLKMOOT_SOAK_SECONDS") or 1800)
KILLS = 30
ROUNDS = 20

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS + 900)]


def test_an_embedded_hub_is_killed_at_thirty_random_instants(world, undisturbed, dice):
    world.server.start()

    train_through((partial(kill, world.server) for _ in range(KILLS)), world, undisturbed, dice)


def test_processes_of_a_hub_of_many_are_killed_at_thirty_random_instants(production, undisturbed, dice):
    kills = (partial(kill, dice.choice(production.processes)) for _ in range(KILLS))

    train_through(kills, production, undisturbed, dice)


def test_whatever_goes_wrong_for_half_an_hour_costs_time_and_nothing_else(production, undisturbed, dice):
    production.place.expected_in_log.append(OF_A_LOST_DATABASE)
    other = Worker(production.place)
    other.start()
    try:
        train_through(faults_in_time(production, other, dice), production, undisturbed, dice)
    finally:
        other.kill()


def train_through(faults, world, undisturbed, dice):
    """Train again and again until there are no more faults; each comes at an instant that the dice choose."""
    world.let_all_begin_alike()
    fault = next(faults, None)
    while fault:
        with as_if_nothing_had_been(world, undisturbed, rounds=ROUNDS) as training_id:
            world.start(training_id)
            while fault and world.training(training_id)["state"] == "O":
                wait_until(lambda: dice.random() < 0.1, "the dice")
                fault()
                fault = next(faults, None)


def faults_in_time(production, other, dice):
    """One after another for so many seconds, some of them two at once."""
    processes = {"server": production.server, "worker": production.worker, "other worker": other}
    processes["beat"] = production.beat
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        names = dice.sample(sorted(processes), dice.choice((0, 1, 1, 1, 2)))
        chosen = [(dice.choice((kill, freeze)), name) for name in names]
        calls = [partial(what, processes[name]) for what, name in chosen]
        if not chosen:
            chosen = [(dice.choice((flush_broker, cut_off_from_postgres)), "all")]
            calls = [partial(what, production.place) for what, _ in chosen]
        logger.warning("%s", " and ".join(f"{what.__name__} ({whom})" for what, whom in chosen))
        yield partial(at_once, *calls)
