"""A training that is disturbed and shows nothing of it, and how to disturb one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import psycopg
from harness import QUICK, Observer, Participants, Place, Process, World

Undisturbed = Callable[[int, int], bytes]


@contextlib.contextmanager
def as_if_nothing_had_been(world: World, undisturbed: Undisturbed, *, rounds: int = 5) -> Iterator[str]:
    """A training of two that has been created; within the block it is started, and disturbed."""
    accounts = world.participants(2)
    training_id = world.create_training(accounts, rounds=rounds)
    with Participants(world, accounts) as participants, Observer(world, training_id):
        yield training_id
        training = world.wait_for_end(training_id, seconds=60)

    assert world.weights(training_id)[1] == undisturbed(2, rounds)
    assert [len(each["arrived"]) for each in training["rounds"]] == [2] * rounds
    assert participants.trained == {account.name: list(range(rounds)) for account in accounts}


def die_at_each(process: Process, points: tuple[str, ...]) -> None:
    """Start it again and again, to die at one point after another; in the end it works."""
    process.kill()
    for point in points:
        process.launch(fault=point)
        process.wait_for_death()
    process.start()


def kill(process: Process) -> None:
    """With all its processes, and start it again."""
    process.kill_and_start()


def freeze(process: Process) -> None:
    """Until long after others may have what it holds."""
    with process.frozen():
        time.sleep(1.5 * float(QUICK["FOLKMOOT_LEASE_SECONDS"]))


def flush_broker(place: Place) -> None:
    assert place.broker is not None
    place.broker.flush()


def cut_off_from_postgres(place: Place) -> None:
    """Everybody, again and again for a moment: at any one instant most of them ask for nothing."""
    with psycopg.connect(place.database_url, autocommit=True) as connection:
        for _ in range(10):
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            time.sleep(0.03)
