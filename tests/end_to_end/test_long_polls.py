"""Those who wait for work: told at once when there is some, sent home when the server stops, no burden meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time

import httpx2
import psutil
import pytest
from harness import wait_until

POLLS = 200
STOPS_WITHIN = 8
on_both = pytest.mark.parametrize("backend", ["sqlite", "postgres"], indirect=True)


@contextlib.contextmanager
def waiting_polls(world, account, count):
    """So many polls of one user that wait, in a thread; gives a future of their answers."""
    from concurrent.futures import ThreadPoolExecutor

    async def poll_all():
        limits = httpx2.Limits(max_connections=count)
        async with httpx2.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
            url = f"{world.server.url}/api/notifications/"
            request = {"params": {"wait": 50, "after": 0}, "headers": account.header}
            return await asyncio.gather(*(client.get(url, **request) for _ in range(count)))

    with ThreadPoolExecutor(1) as thread:
        answers = thread.submit(asyncio.run, poll_all())
        wait_until(lambda: established(world) >= count, f"{count} polls to be connected")
        # One more poll, which is answered at once: all that came before it have been looked at.
        world.call(account, "GET", "/api/notifications/")
        yield answers


def established(world):
    server = psutil.Process(world.server.process.pid)
    return sum(each.status == psutil.CONN_ESTABLISHED for each in server.net_connections("tcp"))


def test_a_poll_is_answered_as_soon_as_there_is_work(world):
    world.server.start()
    ann = world.accounts["ann"]
    training_id = world.create_training([ann], rounds=1)
    with waiting_polls(world, ann, 1) as answers:
        world.start(training_id)
        started = time.monotonic()
        (answer,) = answers.result(timeout=30)

    assert time.monotonic() - started < 3
    types = [each["notification_type"] for each in answer.json()["notifications"]]
    assert types == ["TRAINING_START", "UPDATE_ROUND_START"]


@on_both
def test_two_hundred_idle_polls_hold_no_thread_and_no_database_connection(world, backend):
    world.server.start()
    ann = world.accounts["ann"]
    training_id = world.create_training([ann], rounds=1)
    with waiting_polls(world, ann, POLLS) as answers:
        server = psutil.Process(world.server.process.pid)
        assert server.num_threads() < 50
        assert database_connections(world, backend) < 50
        assert world.training(training_id)["state"] == "I"
        assert not answers.done()
        world.start(training_id)
        assert all(len(answer.json()["notifications"]) == 2 for answer in answers.result(timeout=30))


def database_connections(world, backend):
    if backend == "sqlite":
        files = psutil.Process(world.server.process.pid).open_files()
        return sum(file.path == str(world.place.sqlite) for file in files)
    import psycopg

    with psycopg.connect(world.place.database_url) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        return connection.execute(query).fetchone()[0]


def test_a_server_that_is_told_to_stop_does_so_at_once_though_polls_wait(world):
    world.server.start()
    with waiting_polls(world, world.accounts["ann"], 20) as answers:
        started = time.monotonic()
        code = world.server.terminate()
        seconds = time.monotonic() - started
        told = answers.result(timeout=30)

    assert seconds < STOPS_WITHIN
    assert [answer.status_code for answer in told] == [200] * 20
    assert code == 0


def test_a_server_that_is_told_to_stop_in_the_middle_of_a_round_loses_nothing(world):
    accounts = world.participants(2)
    world.server.start()
    training_id = world.started(accounts, rounds=1, tests="never")
    one, other = world.updates_of(accounts, training_id, 0)
    world.send(one)

    world.server.terminate()
    world.server.start()

    assert world.send(one).status_code == 200
    assert world.send(other).status_code == 201
    world.wait_for_end(training_id)
