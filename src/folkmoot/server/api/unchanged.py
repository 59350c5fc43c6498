"""What an answer is known by, so that who has it already is told just that: 304, and no body."""

from __future__ import annotations

import hashlib

from django.utils.http import parse_etags


def etag_of(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def is_known(etag: str, if_none_match: str) -> bool:
    """Whether the header of this name has the ETag, as it was sent or as a proxy that packs answers has weakened it."""
    known = parse_etags(if_none_match)
    return known == ["*"] or etag in (each.removeprefix("W/") for each in known)
