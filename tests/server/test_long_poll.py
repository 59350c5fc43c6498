"""A question for notifications that waits until there is one: the server's ASGI side, spoken to as uvicorn does."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from functools import partial
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

    def __init__(self, app, query, token, **headers):
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
            "headers": [
                (b"host", b"localhost"),
                (b"authorization", f"Token {token}".encode()),
                *((name.encode(), value.encode()) for name, value in headers.items()),
            ],
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
            return start["status"], json.loads(body["body"] or b"null")
        return None

    def header(self, name):
        return dict(self._sent[0]["headers"])[name.lower().encode()].decode()


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
            await close(app)
            return answer

        return asyncio.run(run())

    return ask


async def close(app):
    for threads in (app._threads, app._lookout._thread):
        await asyncio.get_running_loop().run_in_executor(threads, connections.close_all)
        threads.shutdown()


async def waiting(user):
    """Return once the user's question is held."""
    async with asyncio.timeout(30):
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


def test_all_who_are_woken_together_go_on_in_the_same_turn_so_that_one_look_serves_them():
    async def run():
        hub, users, turn, went_on = Wakeups(), [uuid4() for _ in range(100)], 0, []

        async def wait(user):
            await hub.wait(user, since=hub.clock, timeout=60)
            went_on.append(turn)

        waits = asyncio.gather(*map(wait, users))
        woken = asyncio.create_task(asyncio.to_thread(hub.wake, users))
        while not waits.done():
            turn += 1
            await asyncio.sleep(0)
        await woken
        return went_on

    assert len(set(asyncio.run(run()))) == 1


@pytest.mark.parametrize("query", ["", "after=0", "after=1", "after=2", "after=7", "after=0&wait=0"])
def test_the_answer_is_the_same_whichever_way_it_is_found(make_user, query):
    user = make_user()
    token = issue_token(user)[1]
    for _ in range(2):
        deliver(Message(NotificationType.UPDATE_ROUND_START, uuid4(), {"round": 0}), [user.pk])

    async def ask(**headers):
        app = LongPoll()
        poll = Poll(app, query, token, **headers)
        answer = await poll.finish()
        await close(app)
        sent = {name: value for name, value in poll._sent[0]["headers"] if name != b"x-request-id"}
        return answer, sent

    # A cookie is for Django to look at.
    assert asyncio.run(ask()) == asyncio.run(ask(cookie="theme=dark"))


WAYS = pytest.mark.parametrize("way", [{}, {"cookie": "theme=dark"}], ids=["among many", "by Django"])


@pytest.fixture
def ask_again(make_user):
    """A function that asks, runs what is to happen then, and asks again with the ETag; gives the second question."""
    user = make_user()
    token = issue_token(user)[1]

    def ask(query, way, then=None):
        async def run():
            app = LongPoll()
            first = Poll(app, "", token, **way)
            assert (await first.finish())[0] == 200
            again = Poll(app, query, token, **way, **{"if-none-match": f'"other", W/{first.header("ETag")}'})
            if then is not None:
                await waiting(user)
                await then(user)
            answer = await again.finish()
            await close(app)
            return answer, again

        return asyncio.run(run())

    return ask


@WAYS
def test_who_has_the_answer_already_is_told_just_that(ask_again, way):
    answer, again = ask_again("", way)

    assert answer == (304, None)
    assert again.header("Content-Length") == str(len('{"notifications":[],"last_id":0}'))


@WAYS
def test_who_has_the_answer_already_and_waits_is_told_once_there_is_another(ask_again, way):
    (status, body), _ = ask_again("wait=60", way, then=tell)

    assert (status, body["last_id"]) == (200, 1)


@WAYS
def test_who_has_waited_in_vain_with_an_etag_is_told_that_nothing_has_changed(ask_again, way):
    assert ask_again("wait=1", way)[0] == (304, None)


def test_for_whom_there_is_no_place_is_told_when_to_come_again(make_user):
    users = [make_user() for _ in range(3)]

    async def run():
        app = LongPoll(polls=2)
        ann, ben, cem = (partial(Poll, app, "wait=60", issued) for issued in tokens)
        held = [ann(), ben()]
        await waiting(users[0])
        await waiting(users[1])
        refused = cem()
        assert (await refused.finish())[1]["code"] == "too_many_polls"
        assert refused.header("Retry-After") == "10"
        held[0].hang_up()
        await held[0].finish()
        held.append(cem())
        await waiting(users[2])
        for poll in held[1:]:
            poll.hang_up()
            await poll.finish()
        await close(app)
        return dict(refused._sent[0]["headers"]), refused._sent[0]["status"]

    tokens = [issue_token(user)[1] for user in users]
    headers, status = asyncio.run(run())

    assert status == 429
    assert headers[b"content-type"] == b"application/json"


def test_one_sender_does_not_take_the_places_of_all(make_user):
    ann, ben = make_user(), make_user()
    tokens = [issue_token(user)[1] for user in (ann, ben)]

    async def run():
        app = LongPoll(polls=20)
        polls = [Poll(app, "wait=60", tokens[0]) for _ in range(3)]
        refused = await polls[2].finish()
        other = await Poll(app, "", tokens[1]).finish()
        for poll in polls[:2]:
            poll.hang_up()
            await poll.finish()
        await close(app)
        return refused[0], other[0]

    assert asyncio.run(run()) == (429, 200)


def test_where_few_files_may_be_open_fewer_polls_are_held():
    asked = "from folkmoot.server.api.places import as_files_allow; print(as_files_allow(10), as_files_allow(10_000))"
    command = f'ulimit -n 400; exec {sys.executable} -c "{asked}"'
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)

    assert result.stdout == "10 300\n"


def test_of_many_who_ask_at_once_each_gets_its_own(make_user):
    users = [make_user() for _ in range(30)]
    tokens = [issue_token(user)[1] for user in users]
    for number, user in enumerate(users):
        for _ in range(number % 3):
            deliver(Message(NotificationType.UPDATE_ROUND_START, uuid4(), {"of": user.username}), [user.pk])

    async def ask_all():
        app = LongPoll()
        polls = [Poll(app, f"after={number % 2}", token) for number, token in enumerate([*tokens, "0" * 40])]
        answers = [await poll.finish() for poll in polls]
        await close(app)
        return answers

    *answers, stranger = asyncio.run(ask_all())

    assert stranger[0] == 401
    for number, (user, (status, body)) in enumerate(zip(users, answers, strict=True)):
        after, count = number % 2, number % 3
        expected = count if after > count else count - after  # one that was never given out counts as none
        assert (status, body["last_id"], len(body["notifications"])) == (200, count, expected)
        assert {each["body"]["of"] for each in body["notifications"]} <= {user.username}
