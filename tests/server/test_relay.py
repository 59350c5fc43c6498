"""Wake-ups from other processes go on to be heard, whatever else is sent to their channel."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest
from django.db import connection

from folkmoot.server.notifications import relay
from folkmoot.server.notifications.wakeups import wakeups

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def listener(settings, monkeypatch):
    settings.SWEEP_SECONDS = 0.05
    monkeypatch.setattr(relay, "LOOK_SECONDS", 0.05)
    listener = relay.Listener()
    before = wakeups.clock
    listener.start()
    until_woken(before)
    yield listener
    listener.stop(grace=0)
    listener._thread.join(30)


def send(text):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [relay.CHANNEL, text])


def until_woken(before):
    deadline = time.monotonic() + 10
    while wakeups.clock == before:
        assert time.monotonic() < deadline, "nobody was woken"
        time.sleep(0.01)


@pytest.mark.usefixtures("listener")
@pytest.mark.parametrize("sent", ["other no-recipient", ""])
def test_what_is_no_wake_up_ends_no_listening(sent):
    before = wakeups.clock
    send(sent)
    until_woken(before)  # it listens anew

    before = wakeups.clock
    send(f"other {uuid4().hex}")
    until_woken(before)
