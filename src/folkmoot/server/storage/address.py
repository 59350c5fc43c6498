"""Where files are kept, as `FOLKMOOT_STORAGE_URL` names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from folkmoot.errors import Misconfigured

NAME = "FOLKMOOT_STORAGE_URL"
_FORMS = "file:///path, or s3://bucket/prefix?endpoint=https://host&region=name"


@dataclass(frozen=True)
class S3Address:
    """A bucket, and what all keys of this hub in it begin with; without an endpoint it is Amazon's own."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None


def parse_address(url: str) -> Path | S3Address | None:
    """Read the setting; None where it is empty. Raises Misconfigured."""
    if not url:
        return None
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise Misconfigured(f"{NAME} must not hold credentials: they are read from AWS_ACCESS_KEY_ID and so on")
    if parts.scheme == "file":
        return _folder(parts)
    if parts.scheme == "s3":
        return _bucket(parts)
    raise Misconfigured(f"{NAME} begins with {url.partition(':')[0][:20]!r}; expected {_FORMS}")


def _folder(parts: SplitResult) -> Path:
    path = Path(unquote(parts.path))
    if parts.netloc or parts.query or path == Path("/") or not path.is_absolute():
        raise Misconfigured(f"{NAME} names no folder; file:///srv/folkmoot names one")
    return path


def _bucket(parts: SplitResult) -> S3Address:
    if not parts.netloc:
        raise Misconfigured(f"{NAME} names no bucket; s3://bucket/prefix names one")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := given.keys() - {"endpoint", "region"}:
        raise Misconfigured(f"{NAME} has {min(unknown)[:50]!r} behind the question mark; known are endpoint and region")
    endpoint = given.get("endpoint")
    if endpoint is not None and (urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).netloc):
        raise Misconfigured(f"the endpoint in {NAME} is {endpoint[:100]!r}; expected https://host")
    prefix = unquote(parts.path).strip("/")
    return S3Address(parts.netloc, f"{prefix}/" if prefix else "", endpoint, given.get("region"))
