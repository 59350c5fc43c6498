"""A question for notifications that waits until there is one: the server's ASGI side, spoken to as uvicorn does."""

from __future__ import annotations

import asyncio
import json
import time
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from folkmoot.protocol.notifications import NotificationType
from folkmoot.server.accounts.models import Token
from folkmoot.server.accounts.services import issue_token
from folkmoot.server.api.long_poll import LongPoll
from folkmoot.server.notifications.delivery import Message, deliver
from folkmoot.server.notifications.wakeups import Wakeups, wakeups

pytestmark = pytest.mark.django_db(transaction=True)


class Poll:
    """One request, which the asker may break off; `answer` is a status and a body once there is one."""

    def __init__(self, app, query, token):
        self.answer = None
        self._gone = asyncio.Event()
        self._sent = []
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/api/notifications/",
            "raw_path": b"/api/notifications/",
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(b"host", b"localhost"), (b"authorization", f"Token {token}".encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        assert app.answers(scope)
        self._task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self):
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        self._sent.append(message)

    def hang_up(self):
        self._gone.set()

    async def finish(self):
        await asyncio.wait_for(self._task, timeout=30)
        if self._sent:
            start, body = self._sent
            return start["status"], json.loads(body["body"])
        return None


@pytest.fixture
def poll(make_user):
    """A function that asks as one user does, runs what is to happen meanwhile, and returns the answer."""
    user = make_user()
    token = issue_token(user)[1]

    def ask(query, meanwhile=None):
        async def run():
            app = LongPoll(threads=2)
            question = Poll(app, query, token)
            if meanwhile is not None:
                await waiting(user)
                await meanwhile(user, question)
            answer = await question.finish()
            await asyncio.get_running_loop().run_in_executor(app._threads, connections.close_all)
            app._threads.shutdown()
            return answer

        return asyncio.run(run())

    return ask


async def waiting(user):
    """Return once the user's question is held."""
    while user.pk not in wakeups._waiting:
        await asyncio.sleep(0.001)


async def tell(user, question=None):
    message = Message(NotificationType.UPDATE_ROUND_START, uuid4(), {"round": 0})
    await sync_to_async(deliver)(message, [user.pk])


def test_who_does_not_want_to_wait_is_answered_at_once(poll):
    assert poll("wait=0") == (200, {"notifications": [], "last_id": 0})


def test_the_answer_comes_when_there_is_something_to_tell(poll):
    started = time.monotonic()

    status, answer = poll("wait=60", meanwhile=tell)

    assert (status, len(answer["notifications"]), answer["last_id"]) == (200, 1, 1)
    assert time.monotonic() - started < 30


def test_who_waits_hears_of_what_asks_for_no_work_too(poll):
    async def finish(user, question):
        message = Message(NotificationType.TRAINING_FINISHED, uuid4())
        await sync_to_async(deliver)(message, [user.pk])

    _, answer = poll("wait=60&after=0", meanwhile=finish)

    assert [each["notification_type"] for each in answer["notifications"]] == ["TRAINING_FINISHED"]


def test_the_answer_is_empty_when_the_time_is_over(poll):
    assert poll("wait=1") == (200, {"notifications": [], "last_id": 0})


def test_what_makes_no_sense_is_refused_at_once(poll):
    assert poll("wait=nan")[0] == 400


def test_a_token_that_is_revoked_while_one_waits_gets_nothing(poll):
    async def revoke_and_tell(user, question):
        await sync_to_async(Token.objects.all().delete)()
        await tell(user)

    assert poll("wait=60", meanwhile=revoke_and_tell)[0] == 401


def test_who_hangs_up_is_not_waited_for(poll):
    async def hang_up(user, question):
        question.hang_up()

    assert poll("wait=60", meanwhile=hang_up) is None
    assert not wakeups._waiting


def test_a_server_that_stops_lets_everybody_go():
    async def run():
        hub = Wakeups()
        waits = [asyncio.ensure_future(hub.wait(uuid4(), since=hub.clock, timeout=60)) for _ in range(3)]
        await asyncio.sleep(0)
        hub.close()
        await asyncio.wait_for(asyncio.gather(*waits), timeout=30)
        await asyncio.wait_for(hub.wait(uuid4(), since=hub.clock, timeout=60), timeout=30)

    asyncio.run(run())


def test_a_wake_up_between_looking_and_waiting_is_not_missed():
    async def run():
        hub, user = Wakeups(), uuid4()
        clock = hub.clock
        hub.wake([user])
        await asyncio.wait_for(hub.wait(user, since=clock, timeout=60), timeout=30)

    asyncio.run(run())
