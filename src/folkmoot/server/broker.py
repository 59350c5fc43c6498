"""The broker that wakes Celery's workers, and whether it is there."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import urlsplit

from kombu import Connection

from folkmoot.errors import Misconfigured

SCHEMES = ("redis", "rediss", "amqp", "amqps")
CONNECT_SECONDS = 2
"""How long anybody waits for a broker that does not answer."""


def checked(url: str, *, embedded: bool) -> str:
    """Return the URL of FOLKMOOT_BROKER_URL if it is one that works here; raises Misconfigured."""
    if url and urlsplit(url).scheme not in SCHEMES:
        raise Misconfigured(
            "FOLKMOOT_BROKER_URL is no URL of a broker; redis://host:6379/0 and amqp://user:password@host// are"
        )
    if url and embedded:
        raise Misconfigured("FOLKMOOT_BROKER_URL needs a FOLKMOOT_DATABASE_URL: workers cannot share an SQLite file")
    return url


def transport_options(url: str) -> dict[str, Any]:
    """How long to wait for it, and what is to be kept of messages under way, in the words of its kind."""
    if urlsplit(url).scheme.startswith("redis"):
        # Redis knows no acknowledgements, and where an imitated one fails, its worker takes no further message: one
        # that was at an event while Redis was away would be deaf for ever. A message that is lost, the sweep replaces.
        limits = {"socket_connect_timeout": CONNECT_SECONDS, "socket_timeout": 2 * CONNECT_SECONDS}
        return {**limits, "ack_emulation": False}
    return {}


def tls(url: str) -> dict[str, Any] | None:
    """What of its certificate is checked: everything, where it has one."""
    parts = urlsplit(url)
    if parts.scheme == "rediss":
        return {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    return {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": parts.hostname} if parts.scheme == "amqps" else None


def connection_to(url: str) -> Connection:
    return Connection(
        url, connect_timeout=CONNECT_SECONDS, ssl=tls(url) or False, transport_options=transport_options(url)
    )


def name_of(url: str) -> str:
    """The URL without its password."""
    return Connection(url).as_uri()


def fault_of(url: str) -> str:
    """Why the broker cannot be used, in one line; nothing if it answers."""
    try:
        with connection_to(url) as connection:
            connection.connect()
    except Exception as error:  # each kind of broker has errors of its own, with nothing in common
        return " ".join(str(error).split()) or type(error).__name__
    return ""
