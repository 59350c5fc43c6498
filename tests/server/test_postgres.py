"""No statement keeps the database server busy, or its caller waiting, for long."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, transaction

from folkmoot.server.process import migrating_alone
from folkmoot.server.trainings.models import Training

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]


def limit():
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        return cursor.fetchone()[0]


@pytest.fixture
def impatient():
    """Statements of this thread take a tenth of a second at most."""
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 100")
        yield
        cursor.execute("RESET statement_timeout")


@pytest.fixture
def busy():
    """A function: somebody else holds the training's row until the test is over."""
    holds, done = threading.Event(), threading.Event()
    threads = []

    def hold(training_id):
        with transaction.atomic():
            Training.objects.select_for_update().get(pk=training_id)
            holds.set()
            done.wait(timeout=60)
        connection.close()

    def make(training_id):
        threads.append(threading.Thread(target=hold, args=[training_id]))
        threads[-1].start()
        assert holds.wait(timeout=60)

    yield make
    done.set()
    for thread in threads:
        thread.join()


def test_a_statement_ends_after_ten_seconds():
    assert limit() == "10s"


def test_a_migration_takes_as_long_as_it_takes():
    with migrating_alone():
        assert limit() == "0"

    assert limit() == "10s"


def test_who_has_waited_for_so_long_is_told_to_try_again(make_scene, busy, impatient):
    scene = make_scene()
    busy(scene.id)

    answer = scene.command("pause")

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer["Retry-After"]
