"""A server that is killed between two rounds, or in the middle of one, goes on with its strategy's state exactly."""

from __future__ import annotations

import pytest
from harness import Participants

ROUNDS = 3


@pytest.fixture
def train(world):
    """A function: the file that a training with momentum ends with, on a server that dies at this point."""

    def run(fault):
        accounts = world.participants(2)
        world.server.start(fault=fault)
        training_id = world.create_training(accounts, rounds=ROUNDS, aggregation_method="FedAvgM", tests="never")
        with Participants(world, accounts):
            world.start_on_a_dying_server(training_id)
            if fault:
                world.server.wait_for_death()
                world.server.start()
            world.wait_for_end(training_id)
        return world.weights(training_id)[1]

    return run


# What each round begins with, and that its state follows from that, is among the invariants of every world.
@pytest.mark.parametrize("point", ["round_full.summed:2", "round_full.blob_written:2", "round_full.after_commit"])
def test_a_restart_goes_on_from_the_same_state(train, point):
    train(point)


def test_without_a_restart_the_state_is_what_follows_from_the_round(train):
    train("")
