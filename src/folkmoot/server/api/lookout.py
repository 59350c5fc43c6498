"""Looking for notifications on behalf of many polls at once: who asks during a look is in the next one.

A look of its own takes each poll through all layers of Django; of five thousand that are woken at the same moment the
last would wait for many seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from django.db import close_old_connections
from rest_framework.renderers import JSONRenderer

from folkmoot.server.accounts.models import Token
from folkmoot.server.api.serializers.notifications import NotificationsSerializer
from folkmoot.server.notifications.delivery import Poll, waiting_for_all
from folkmoot.server.notifications.presence import note_all_seen

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 200
"""More than a few hundred queries in one are no faster, and the first would wait for the last."""
LONGEST_PAUSE = 0.02
"""Seconds between two looks, in which more come to ask."""

Scope = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """What a participant's program asks: by token, with no more than `after` and `wait`."""

    token: str
    after: int | None
    wait: int
    user_agent: str = ""

    @classmethod
    def of(cls, scope: Scope) -> Question | None:
        """None of a request that has anything unusual: that is for Django to understand, or to refuse."""
        headers = dict(scope["headers"])
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        is_usual = (
            scheme.lower() in (b"token", b"bearer")
            and b"cookie" not in headers
            and b"html" not in headers.get(b"accept", b"")
            and query.keys() <= {"after", "wait"}
            and scope["query_string"].count(b"=") == len(query)
            and all(len(value) <= 18 and value.isascii() and value.isdigit() for value in query.values())
        )
        if not is_usual:
            return None
        after = int(query["after"]) if "after" in query else None
        user_agent = headers.get(b"user-agent", b"").decode("latin-1")
        return cls(token.strip().decode("latin-1"), after, int(query.get("wait", 0)), user_agent)


@dataclass(frozen=True)
class Found:
    """What there is for the user; `body` is the answer's."""

    user_id: UUID
    body: bytes
    last_id: int
    is_empty: bool


class Lookout:
    """Looks whenever somebody asks, one look at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="look")
        self._asked: list[tuple[Question, asyncio.Future[Found | None]]] = []
        self._looking: asyncio.Task[None] | None = None

    async def look(self, question: Question) -> Found | None:
        """What there is; None for a token that is not valid, and where nothing could be read."""
        future: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        self._asked.append((question, future))
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return await future

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while self._asked:
            batch, self._asked = self._asked[:MOST_AT_ONCE], self._asked[MOST_AT_ONCE:]
            began = loop.time()
            answers = await loop.run_in_executor(self._thread, _answers_to, [question for question, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
            if len(self._asked) < MOST_AT_ONCE:
                # As long again: a look costs much the same for few as for many, and uploads want the processor, too.
                await asyncio.sleep(min(loop.time() - began, LONGEST_PAUSE))


def _answers_to(questions: Sequence[Question]) -> list[Found | None]:
    try:
        close_old_connections()
        return _found_for(questions)
    except Exception:
        # Each asks Django now, and is told what is wrong.
        logger.warning("could not look for notifications", exc_info=True)
        return [None] * len(questions)


def _found_for(questions: Sequence[Question]) -> list[Found | None]:
    known = {
        digest: (user, last)
        for digest, user, last in Token.objects.valid()
        .filter(digest__in={Token.digest_of(question.token) for question in questions})
        .order_by()
        .values_list("digest", "user", "user__last_notification")
    }
    whose = [known.get(Token.digest_of(question.token)) for question in questions]
    polls = [Poll(who[0], who[1], each.after) for who, each in zip(whose, questions, strict=True) if who]
    note_all_seen({who[0]: each.user_agent for who, each in zip(whose, questions, strict=True) if who})
    answers = iter(zip(polls, waiting_for_all(polls), strict=True))
    return [_found(*next(answers)) if who else None for who in whose]


def _found(poll: Poll, answer: tuple[list[Any], int]) -> Found:
    notifications, last_id = answer
    return Found(poll.user_id, _body(notifications, last_id), last_id, not notifications)


def _body(notifications: list[Any], last_id: int) -> bytes:
    if not notifications:
        # As the serializer has it, which takes longer for this than all else that is done for a poll.
        return b'{"notifications":[],"last_id":%d}' % last_id
    return JSONRenderer().render(NotificationsSerializer({"notifications": notifications, "last_id": last_id}).data)
