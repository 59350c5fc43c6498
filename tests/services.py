"""The services that tests talk to: where they are, and what to do if one is not."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

CI = os.environ.get("CI") == "true"
ON_POSTGRES = os.environ.get("FOLKMOOT_TEST_DATABASE") == "postgres"
"""Whether this is the second run of `make test`, of the server's tests on the services of production."""
POSTGRES = os.environ.get("FOLKMOOT_TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")
REDIS = os.environ.get("FOLKMOOT_TEST_REDIS_URL", "redis://127.0.0.1:6379")
RABBITMQ = os.environ.get("FOLKMOOT_TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
ADVICE = {
    "FOLKMOOT_TEST_POSTGRES_URL": (POSTGRES, 5432, "apt-get install postgresql"),
    "FOLKMOOT_TEST_REDIS_URL": (REDIS, 6379, "apt-get install redis-server"),
    "FOLKMOOT_TEST_RABBITMQ_URL": (RABBITMQ, 5672, "apt-get install rabbitmq-server"),
}


def missing() -> list[str]:
    """A sentence for each service that does not answer: what to install, or which variable names another."""
    return [_advice(variable) for variable, (url, port, _) in ADVICE.items() if not _listens(url, port)]


def _advice(variable: str) -> str:
    url, port, command = ADVICE[variable]
    address = urlsplit(url)
    return f"nothing answers at {address.hostname}:{address.port or port} ({command} and start it, or set {variable})"


def _listens(url: str, port: int) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port or port), timeout=5).close()
    except OSError:
        return False
    return True
