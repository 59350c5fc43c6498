"""Which endpoints the server may push to: a participant must not make it reach into the server's own network."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from django.conf import settings

from folkmoot.errors import NotAllowed, Unavailable

NAT64 = ipaddress.ip_network("64:ff9b::/96")


def address_to_reach(endpoint: str) -> str:
    """Resolve the endpoint's host once and return the address to connect to.

    Raises NotAllowed where the policy forbids it, Unavailable where the name does not resolve. The caller connects
    to this very address: a name that resolves differently a moment later changes nothing.
    """
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    named = host in settings.PUSH_ALLOW
    if not named and not settings.EMBEDDED:
        raise NotAllowed(f"pushing to {host} is not allowed: FOLKMOOT_PUSH_ALLOW does not name it")
    addresses = _resolve(host, parts.port or (443 if parts.scheme == "https" else 80))
    if not named and not all(map(_may_be_reached, addresses)):
        raise NotAllowed(f"pushing to {host} is not allowed: it is in a private network")
    return addresses[0]


def _resolve(host: str, port: int) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"{host} cannot be resolved") from error


def _may_be_reached(text: str) -> bool:
    """Embedded mode: this machine itself, or the public internet."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour
        if carried is not None:
            address = carried
        elif address in NAT64:
            return False
    return address.is_loopback or (address.is_global and not address.is_multicast)
