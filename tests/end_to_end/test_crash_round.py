"""R2: the server is killed at every point of what it does on its own, and in every state of a round."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Observer, Participants, finish, play_round, trained, wait_until
from invariants import read

from folkmoot.tensors import open_tensors

ROUNDS = 2
POINTS = (
    "round_opened.claimed",
    "round_opened.before_notify",
    "round_full.claimed",
    "round_full.loaded:2",
    "round_full.summed",
    "round_full.blob_written",
    "round_full.before_commit",
    "round_full.after_commit",
    "test_opened.claimed",
    "test_opened.before_notify",
    # Between the aggregation and the next round's notifications.
    "round_opened.claimed:2",
    "round_opened.before_notify:2",
    "training_finished.claimed",
)


@pytest.mark.parametrize("point", POINTS)
def test_a_server_killed_at_a_point_of_its_own_work_ends_the_training_as_if_nothing_had_been(world, point, undisturbed):
    accounts = world.participants(3)
    world.server.start(fault=point)
    training_id = world.create_training(accounts, rounds=ROUNDS)
    with Participants(world, accounts) as participants, Observer(world, training_id):
        world.start_on_a_dying_server(training_id)
        world.server.wait_for_death()
        world.server.start()
        training = world.wait_for_end(training_id)
        told = wait_until(lambda: everybody_told_of_the_end(world), "everybody to hear of the end")

    assert told == {account.id for account in (*accounts, world.actor)}
    assert world.weights(training_id)[1] == undisturbed(3, ROUNDS)
    assert [len(each["arrived"]) for each in training["rounds"]] == [3] * ROUNDS
    assert participants.trained == {account.name: [0, 1] for account in accounts}


def everybody_told_of_the_end(world):
    told = read(world.place, "SELECT recipient_id FROM notifications_notification WHERE type = 'TRAINING_FINISHED'")
    return {row["recipient_id"] for row in told}


def nobody_has_answered(world, training_id, accounts):
    """The round collects."""


def half_of_the_updates_are_in(world, training_id, accounts):
    for account in accounts[:2]:
        assert world.send(world.update_of(account, training_id, 0)).status_code == 201


def the_model_is_to_be_tested(world, training_id, accounts):
    play_round(world, accounts, training_id, 0)
    world.wait_for_round(training_id, 0, "TESTING")


def half_of_the_metrics_are_in(world, training_id, accounts):
    the_model_is_to_be_tested(world, training_id, accounts)
    for account in accounts[:2]:
        assert world.answer_test(account, training_id).status_code == 201


def the_next_round_is_open(world, training_id, accounts):
    the_model_is_to_be_tested(world, training_id, accounts)
    for account in accounts:
        assert world.answer_test(account, training_id).status_code == 201
    world.wait_for_round(training_id, 1)


MOMENTS = (
    nobody_has_answered,
    half_of_the_updates_are_in,
    the_model_is_to_be_tested,
    half_of_the_metrics_are_in,
    the_next_round_is_open,
)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_server_killed_in_any_state_of_a_round_goes_on_from_there(world, moment, undisturbed):
    accounts = world.participants(4)
    world.server.start()
    training_id = world.started(accounts, rounds=ROUNDS)
    moment(world, training_id, accounts)
    before = world.training(training_id)

    world.server.kill_and_start()

    assert world.training(training_id) == before
    finish(world, accounts, training_id)
    assert world.weights(training_id)[1] == undisturbed(4, ROUNDS)


@pytest.mark.parametrize("point", ["round_full.loaded:2", "round_full.summed", "round_full.after_commit"])
def test_where_only_some_tensors_travel_a_killed_server_loses_none_of_the_others(world, point):
    accounts = world.participants(2)
    world.server.start(fault=point)
    training_id = world.create_training(accounts, rounds=ROUNDS, exchange=["bias"])
    with Participants(world, accounts):
        world.start_on_a_dying_server(training_id)
        world.server.wait_for_death()
        world.server.start()
        world.wait_for_end(training_id)

    before, after = (world.weights(training_id, round)[0] for round in (0, ROUNDS))
    np.testing.assert_array_equal(after["weight"], before["weight"])
    assert not np.array_equal(after["bias"], before["bias"])


def test_a_server_killed_again_and_again_at_random_ends_the_training_as_if_nothing_had_been(world, undisturbed, dice):
    accounts = world.participants(3)
    world.server.start()
    training_id = world.create_training(accounts, rounds=8)
    with Participants(world, accounts) as participants, Observer(world, training_id):
        world.start(training_id)
        for _ in range(4):
            wait_until(lambda: dice.random() < 0.1, "the dice")
            world.server.kill_and_start()
        world.wait_for_end(training_id)

    assert participants.trained == {account.name: list(range(8)) for account in accounts}
    assert world.weights(training_id)[1] == undisturbed(3, 8)


def test_an_update_whose_answer_was_lost_with_the_server_is_not_trained_again(world):
    accounts = world.participants(2)
    world.server.start(fault="upload.after_commit:2")
    training_id = world.create_training(accounts, rounds=ROUNDS)
    with Participants(world, accounts) as participants:
        world.start_on_a_dying_server(training_id)
        world.server.wait_for_death()
        world.server.start()
        world.wait_for_end(training_id)

    assert participants.trained == {account.name: [0, 1] for account in accounts}


CHAIN_POINTS = (
    # The second round, in which everybody begins with another's local model, is announced.
    "round_opened.claimed:2",
    "round_opened.before_notify:2",
    # The last update of a round between comes in, and with it the next round opens.
    "upload.before_commit:3",
    "upload.after_commit:3",
    # The first update that goes to a local model, and the aggregation at the end of the chain.
    "upload.before_commit:4",
    "round_full.claimed",
    "round_full.summed",
    "round_full.after_commit",
)


@pytest.mark.parametrize("point", CHAIN_POINTS)
def test_a_server_killed_while_local_models_wander_loses_and_doubles_none(world, point):
    accounts = world.participants(3)
    world.server.start(fault=point)
    training_id = world.create_training(accounts, rounds=2, daisy_chain_period=2)
    with Participants(world, accounts) as participants, Observer(world, training_id):
        world.start_on_a_dying_server(training_id)
        world.server.wait_for_death()
        world.server.start()
        training = world.wait_for_end(training_id)

    assert [len(each["arrived"]) for each in training["rounds"]] == [3] * 4
    assert participants.trained == {account.name: [0, 1, 2, 3] for account in accounts}
    assert_each_update_was_trained_from_what_was_handed_over(world, training_id)


def assert_each_update_was_trained_from_what_was_handed_over(world, training_id):
    updates = {each["id"]: each for each in read(world.place, "SELECT * FROM trainings_update")}
    numbers = {each["id"]: each["number"] for each in read(world.place, "SELECT * FROM trainings_round")}
    names = {account.id: account.name for account in world.accounts.values()}
    handed_over = {
        (each["round_id"], each["participant_id"]): tensors(world, updates[each["update_id"]])
        for each in read(world.place, "SELECT * FROM trainings_handover")
    }
    for update in updates.values():
        number = numbers[update["round_id"]]
        own = handed_over.get((update["round_id"], update["participant_id"]))
        expected = trained(own or world.weights(training_id, number)[0], names[update["participant_id"]], number)
        for name, tensor in tensors(world, update).items():
            np.testing.assert_array_equal(tensor, expected[name])


def tensors(world, update):
    return dict(open_tensors(world.place.blobs / update["sha256"][:2] / update["sha256"]))


SWAG_POINTS = (
    "swag_opened.claimed",
    "swag_opened.before_notify",
    "swag.before_commit:2",
    "swag.after_commit:3",
    "swag_full.claimed",
    "swag_full.blob_written",
    "swag_full.before_commit",
    "swag_full.after_commit",
)


@pytest.mark.parametrize("point", SWAG_POINTS)
def test_a_server_killed_while_moments_are_collected_and_merged_ends_as_if_nothing_had_been(world, point, undisturbed):
    accounts = world.participants(3)
    world.server.start(fault=point)
    training_id = world.create_training(accounts, rounds=ROUNDS, uncertainty_method="SWAG")
    with Participants(world, accounts) as participants, Observer(world, training_id):
        world.start_on_a_dying_server(training_id)
        world.server.wait_for_death()
        world.server.start()
        world.wait_for_end(training_id)

    assert participants.trained == {account.name: [0, 1] for account in accounts}
    assert world.weights(training_id)[1] == undisturbed(3, ROUNDS)
    sent = read(world.place, "SELECT * FROM trainings_swagstatistic")
    assert len(sent) == 3 * ROUNDS
    assert all(each["num_examples"] for each in sent)
    assert len(read(world.place, "SELECT * FROM registry_moments")) == ROUNDS
