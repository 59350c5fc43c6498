"""Participants that are killed while they train, that come late, or take their time."""

from __future__ import annotations

from harness import Participants, participant_process, wait_until


def test_a_participant_killed_while_training_and_started_again_completes_the_round(world, undisturbed):
    ann, *others = world.participants(3)
    world.server.start()
    training_id = world.create_training([ann, *others], rounds=2)
    with Participants(world, others):
        world.start(training_id)
        with participant_process(world, ann, waits=True) as first:
            assert first.stdout.readline() == "training round 0\n"
            first.kill()
        assert world.round_state(training_id, 0) == "OPEN"
        with participant_process(world, ann, waits=False) as second:
            world.wait_for_end(training_id)
            second.terminate()
            assert second.communicate(timeout=30)[0] == "training round 0\ntraining round 1\n"
            assert second.returncode == 0

    assert world.weights(training_id)[1] == undisturbed(3, 2)


def test_a_participant_that_comes_late_finds_the_work_that_waits_for_it(world):
    ann, *others = world.participants(2)
    world.server.start()
    training_id = world.started([ann, *others], rounds=1)
    with Participants(world, others):
        world.wait_for_round(training_id, 0)
        with Participants(world, [ann]) as late:
            world.wait_for_end(training_id)

    assert late.trained == {"ann": [0]}


def test_in_asynchronous_training_nobody_waits_for_a_slow_participant_whose_work_counts_all_the_same(world):
    ann, *others = world.participants(3)
    world.server.start()
    buffered = {"aggregation_method": "FedBuff", "aggregation": {"buffer_size": 2, "max_staleness": 200}}
    training_id = world.create_training([ann, *others], rounds=200, **buffered)

    def of_ann():
        updates = world.call(world.actor, "GET", f"/api/trainings/{training_id}/updates/").json()
        return [each for each in updates if each["participant"] == ann.id and each["status"] == "accepted"]

    with participant_process(world, ann, waits=True) as slow:
        world.start(training_id)
        assert slow.stdout.readline() == "training round 0\n"
        with Participants(world, others):
            world.wait_for_round(training_id, 2)
            slow.stdin.close()
            slow.stdin = None  # which `communicate` would look at
            first = wait_until(of_ann, "the slow participant's update to count")[0]

    assert first["round"] == 0
    assert first["counted_in"] >= 2
