"""R22: what is on the disk at any moment is enough to go on from."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from harness import NAMES, Participants, Server, World, finish, wait_until
from invariants import check_history

ROUNDS = 5
COPIES = 3
MOST_TORN_BYTES = 16 * 4096
"""Some pages: what was there before the training must not be lost with it."""


@pytest.fixture
def copies(world, tmp_path, dice):
    """Places as a power cut would have left them, at moments of one training that the dice chose."""
    accounts = world.participants(3)
    world.server.start()
    training_id = world.create_training(accounts, rounds=ROUNDS)
    with Participants(world, accounts):
        world.start(training_id)
        places = []
        for number in range(COPIES):
            wait_until(lambda: dice.random() < 0.15, "the dice")
            places.append(copy_now(world, tmp_path / f"copy-{number}"))
        world.wait_for_end(training_id)
    return training_id, places


def copy_now(world, folder):
    """Copy the server's files while it does nothing: what was answered until then is to be in the copy."""
    with world.server.frozen():
        shutil.copytree(world.place.data_dir, folder / "data")
    return replace(world.place, folder=folder, accepted=[])


def tear(place, dice):
    """Lose the end of what was written last, as a disk does that was in the middle of it."""
    log = place.sqlite.with_name("folkmoot.sqlite3-wal")
    with log.open("r+b") as file:
        file.truncate(max(log.stat().st_size - dice.randrange(MOST_TORN_BYTES), 0))


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "with the end of the write-ahead log lost"])
def test_a_training_goes_on_from_a_copy_of_the_files_at_any_moment(world, copies, torn, undisturbed, dice):
    training_id, places = copies
    for place in places:
        if torn:
            tear(place, dice)
        other = World(Server(place), world.accounts, world.model_id)
        other.server.start()
        try:
            check_history(place)
            kept = again_if_lost(other, training_id)
            finish(other, other.participants(3), kept)
            check_history(place)
            assert other.weights(kept)[1] == undisturbed(3, ROUNDS)
        finally:
            other.server.kill()


def again_if_lost(world, training_id):
    """What came last is not in a torn copy: its creation, its start."""
    answer = world.call(world.actor, "GET", f"/api/trainings/{training_id}/")
    if answer.status_code == 404:
        return world.started(world.participants(3), rounds=ROUNDS)
    if answer.json()["state"] == "I":
        world.start(training_id)
    return training_id


def test_every_update_that_was_answered_is_in_a_copy_made_at_once(world, tmp_path):
    accounts = world.participants(len(NAMES))
    world.server.start()
    training_id = world.started(accounts, rounds=1, tests="never")
    for number, update in enumerate(world.updates_of(accounts, training_id, 0)):
        world.send(update)
        copied = copy_now(world, tmp_path / f"copy-{number}")
        copied.accepted += world.place.accepted
        check_history(copied)
