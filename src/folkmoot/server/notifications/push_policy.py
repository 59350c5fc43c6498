"""Which endpoints the server may push to: a participant must not make it reach into the server's own network."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from django.conf import settings

from folkmoot.errors import NotAllowed, Unavailable

# Ways into a private network that not every Python's `is_global` knows: protocol assignments, IPv4-compatible,
# NAT64 (everybody's and one's own) and site-local addresses.
INDIRECT = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "fec0::/10")))


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
    if address.is_loopback:
        return True
    return address.is_global and not address.is_multicast and not any(address in network for network in INDIRECT)
