"""Who sends a request, as far as can be told before anything is looked up."""

from __future__ import annotations

from typing import Any


def address_of(scope: dict[str, Any]) -> str:
    return str((scope.get("client") or ("",))[0])


def sender_of(scope: dict[str, Any]) -> bytes | str:
    """The token, which may turn out not to be valid, or else the address."""
    # A password can be spelled in many ways, in base64, and each would be a sender of its own.
    scheme, _, token = dict(scope.get("headers", ())).get(b"authorization", b"").partition(b" ")
    return (scheme.lower() in (b"token", b"bearer") and token.strip()) or address_of(scope)
