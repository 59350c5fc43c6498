"""R12 to R15: of five participants one is unlike the others; the round goes on with four, and says who was missing."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from harness import Participants, as_file, participant_process, wait_until

DEADLINE = 4
QUORUM = {"min_updates": 4, "round_timeout": DEADLINE, "tests": "never"}


@pytest.fixture
def at_work(world):
    """A function: four participants work at a training of so many rounds; the fifth, eva, is left to the test."""
    world.server.start()
    with contextlib.ExitStack() as until_the_end:

        def begin(*, rounds):
            *four, eva = world.participants(5)
            training_id = world.started([*four, eva], rounds=rounds, **QUORUM)
            until_the_end.enter_context(Participants(world, four))
            return training_id, eva

        yield begin


def left_out(world, training_id, number=0):
    """The names of those who were asked in a round and are in no aggregate."""
    current = world.training(training_id)["rounds"][number]
    names = {account.id: name for name, account in world.accounts.items()}
    return [names[each] for each in current["cohort"] if each not in current["arrived"]]


def test_one_that_never_answers_is_not_waited_for_beyond_the_deadline(world, at_work, undisturbed):
    training_id, _ = at_work(rounds=1)

    world.wait_for_end(training_id)

    assert left_out(world, training_id) == ["eva"]
    assert world.weights(training_id)[1] == undisturbed(4, 1)


def test_one_that_dies_while_it_trains_is_not_waited_for_beyond_the_deadline(world, at_work, undisturbed):
    with participant_process(world, world.accounts["eva"], waits=True) as eva:
        training_id, _ = at_work(rounds=1)
        assert eva.stdout.readline() == "training round 0\n"
        eva.kill()

    world.wait_for_end(training_id)

    assert left_out(world, training_id) == ["eva"]
    assert world.weights(training_id)[1] == undisturbed(4, 1)


def test_one_that_answers_after_the_deadline_is_told_so_and_counts_in_the_next_round(world, at_work):
    training_id, eva = at_work(rounds=2)
    world.wait_for_round(training_id, 0)
    late = world.update_of(eva, training_id, 0)
    world.wait_for_round(training_id, 1)

    refused = world.send(late)
    with Participants(world, [eva]):
        world.wait_for_end(training_id)

    assert (refused.status_code, refused.json()["code"]) == (400, "round_closed")
    assert [left_out(world, training_id, number) for number in range(2)] == [["eva"], []]


def test_one_that_comes_and_goes_is_counted_in_each_round_once(world, at_work, undisturbed):
    training_id, eva = at_work(rounds=2)

    def over():
        with Participants(world, [eva]) as flapping:
            wait_until(lambda: flapping.trained["eva"] or world.training(training_id)["state"] == "C", "eva to train")
        return world.training(training_id)["state"] == "C"

    wait_until(over, "the end")

    assert [left_out(world, training_id, number) for number in range(2)] == [[], []]
    assert world.weights(training_id)[1] == undisturbed(5, 2)


def test_one_that_sends_garbage_is_refused_each_time_and_spoils_nothing(world, at_work, undisturbed):
    training_id, eva = at_work(rounds=1)
    world.wait_for_round(training_id, 0)
    update = world.update_of(eva, training_id, 0)
    garbage = (b"", b"garbage", update.file[:-1], as_file({"bias": [float("nan")] * 3}), b"PK\3\4" + update.file)

    refused = [world.send(replace(update, file=each)).status_code for each in garbage]
    world.wait_for_end(training_id)

    assert set(refused) <= {400, 422}
    assert left_out(world, training_id) == ["eva"]
    assert world.weights(training_id)[1] == undisturbed(4, 1)
