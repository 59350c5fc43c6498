"""Real brokers, of which each test has a part of its own: a database of Redis, queues of RabbitMQ."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from kombu import Connection
from redis import Redis
from redis.exceptions import RedisError

from services import RABBITMQ, REDIS

NO_BROKER = "no {name} at {url}: apt-get install {package}, then name it in {variable}"
DATABASES = range(1, 16)
OURS = "folkmoot-test"
LANES = ("trainings", "pushes", "models")


@dataclass(frozen=True)
class Broker:
    """Where it is, and how to make it forget all that it was told, this test's part of it alone."""

    url: str
    flush: Callable[[], Any]
    prefix: str = "folkmoot"

    @property
    def environment(self) -> dict[str, str]:
        return {"FOLKMOOT_BROKER_URL": self.url, "FOLKMOOT_QUEUE_PREFIX": self.prefix}


@contextmanager
def broker_of(kind: str, *, seconds: int = 300) -> Iterator[Broker]:
    """One for a test that takes no longer than `seconds`."""
    with _redis(seconds) if kind == "redis" else _rabbitmq() as broker:
        yield broker


@contextmanager
def _redis(seconds: int) -> Iterator[Broker]:
    """A database that no other test uses: whoever writes its mark has it, for as long as its test may take."""
    databases = [Redis.from_url(f"{REDIS}/{number}", socket_connect_timeout=2) for number in DATABASES]
    try:
        mine = next(number for number, each in enumerate(databases) if each.set(OURS, "", nx=True, ex=seconds))
    except (RedisError, OSError) as error:
        _missing("Redis", REDIS, "redis-server", "FOLKMOOT_TEST_REDIS_URL", error)

    def flush() -> None:
        databases[mine].flushdb()
        databases[mine].set(OURS, "", ex=seconds)

    flush()
    try:
        yield Broker(f"{REDIS}/{DATABASES[mine]}", flush)
    finally:
        databases[mine].flushdb()


@contextmanager
def _rabbitmq() -> Iterator[Broker]:
    connection = Connection(RABBITMQ, connect_timeout=2)
    try:
        connection.connect()
    except Exception as error:
        _missing("RabbitMQ", RABBITMQ, "rabbitmq-server", "FOLKMOOT_TEST_RABBITMQ_URL", error)
    prefix = f"folkmoot-test-{uuid.uuid4().hex[:12]}"

    def each_queue(do: str) -> None:
        for lane in LANES:
            with connection.channel() as channel:
                getattr(channel, do)(f"{prefix}.{lane}")

    try:
        # The queues as well: what a broker has that begins anew.
        yield Broker(RABBITMQ, lambda: each_queue("queue_delete"), prefix)
    finally:
        each_queue("queue_delete")
        connection.close()


def _missing(name: str, url: str, package: str, variable: str, error: Exception) -> None:
    if os.environ.get("CI") == "true":
        raise error
    pytest.skip(NO_BROKER.format(name=name, url=url, package=package, variable=variable))
