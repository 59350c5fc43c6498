"""R24: of all that a training asks of the database and of the disk, one thing fails; asked again, all goes on.

On PostgreSQL a statement that fails takes the connection with it. What fails of the messages to the broker, for which
there have to be processes: `tests/end_to_end/test_nth_message.py`.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager

import psycopg
import pytest
from django.db import Error, OperationalError, close_old_connections, connection, connections

from folkmoot.server.outbox.events import handle_next_event
from folkmoot.server.outbox.models import Event, Lane
from folkmoot.server.registry.models import Checkpoint
from services import ON_POSTGRES, POSTGRES

pytestmark = pytest.mark.django_db(transaction=True)

UPDATES = ([1.0, 2.0], [3.0, 6.0])
# How long a way it is from one failure to the next that is tried; in `make soak` all are.
every_so_often = pytest.mark.parametrize(
    "stride", [40 if ON_POSTGRES else 10, pytest.param(1, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)


class Failure:
    """Comes once: to whatever is done for the `number`-th time; with 0 it only counts."""

    def __init__(self, number):
        self._number = number
        self.count = 0

    def comes(self):
        self.count += 1
        return self.count == self._number


@contextmanager
def of_statements(failure, monkeypatch):
    def execute(next_one, sql, params, many, context):
        if failure.comes():
            lose_connection(context["connection"])
        return next_one(sql, params, many, context)

    with connection.execute_wrapper(execute):
        yield
    connections.close_all()


def lose_connection(broken):
    """As far as there is one: SQLite itself says that the disk has failed."""
    if broken.vendor == "sqlite":
        raise OperationalError("disk I/O error")
    with psycopg.connect(POSTGRES, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [broken.connection.info.backend_pid])


@contextmanager
def of_the_disk(failure, monkeypatch):
    """Of all calls by which files come to be, and last."""

    def failing(call):
        def attempt(*arguments, **options):
            if failure.comes():
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return call(*arguments, **options)

        return attempt

    with monkeypatch.context() as patched:
        for name in ("fsync", "replace", "utime"):
            patched.setattr(os, name, failing(getattr(os, name)))
        yield


@every_so_often
@pytest.mark.parametrize("where", [of_statements, pytest.param(of_the_disk, marks=pytest.mark.sqlite)])
def test_whatever_fails_once_costs_no_update_and_doubles_none(make_scene, bring_forward, monkeypatch, where, stride):
    def attempt(number):
        scene = make_scene(started=False)
        for user in (scene.actor, *scene.participants):
            scene.told(user)  # whoever has a token already
        failure = Failure(number)
        with where(failure, monkeypatch):
            refusals = play(scene, bring_forward)
        assert refusals in ([], [503]), number
        check(scene)
        return failure.count

    total = attempt(0)
    assert total > 20 if where is of_statements else total > 5

    for number in range(1, total + 1, stride if where is of_statements else 1):
        attempt(number)


def play(scene, bring_forward):
    """Have everybody do its part, twice if it was refused; return the statuses of the refusals."""
    refusals = []

    def ask(call):
        close_old_connections()  # as Django does before each request, but for those of its test client
        return call()

    def insist(call):
        answer = ask(call)
        if answer.status_code >= 500:
            refusals.append(answer.status_code)
            answer = ask(call)
        assert answer.status_code in (200, 201, 202), answer.content

    def work():
        """As the worker's thread does, which goes on whatever happens."""
        for _ in range(30):
            try:
                if not handle_next_event(Lane.TRAININGS) and not bring_forward():
                    return
            except (Error, OSError):
                connections.close_all()
                bring_forward()
        pytest.fail("there is always something to do")

    insist(lambda: scene.command("start"))
    work()
    for participant, w in zip(scene.participants, UPDATES, strict=True):
        insist(lambda participant=participant, w=w: scene.send_update(participant, w=w))
    work()
    for participant in scene.participants:
        insist(lambda participant=participant: scene.report(participant, accuracy=0.5))
    work()
    return refusals


def check(scene):
    assert (scene.state, scene.round_states) == ("C", ["CLOSED"])
    assert scene.weights() == [2.0, 4.0]
    assert Checkpoint.objects.filter(model=scene.model_id).count() == 2
    kinds = list(Event.objects.filter(subject=scene.id).values_list("kind", flat=True))
    assert {kind: kinds.count(kind) for kind in ("round_full", "update_received", "training_finished")} == {
        "round_full": 1,
        "update_received": 2,
        "training_finished": 1,
    }
    for participant in scene.participants:
        told = scene.types_told(participant)
        assert len(told) == len(set(told)) == 4
