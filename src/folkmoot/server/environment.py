"""Reading environment variables: each has a name, a default and a sentence for when it is wrong."""

from __future__ import annotations

import os
from pathlib import Path

from folkmoot.errors import Misconfigured


def text(name: str, default: str) -> str:
    return os.environ.get(name, default).strip()


def whole_number(name: str, default: int, *, at_least: int = 1) -> int:
    given = text(name, str(default))
    if not given.isascii() or not given.isdigit() or int(given) < at_least:
        raise Misconfigured(f"{name} is {given!r}; it must be a whole number of at least {at_least}")
    return int(given)


def seconds(name: str, default: float) -> float:
    given = text(name, str(default))
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise Misconfigured(f"{name} is {given!r}; it must be a number of seconds above 0")
    return value


def flag(name: str, default: bool) -> bool:
    given = text(name, "true" if default else "false").lower()
    if given not in ("true", "false", "1", "0", "yes", "no"):
        raise Misconfigured(f"{name} is {given!r}; it must be true or false")
    return given in ("true", "1", "yes")


def choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    given = text(name, default)
    if given not in choices:
        raise Misconfigured(f"{name} is {given!r}; it must be one of {', '.join(choices)}")
    return given


def names(name: str, default: str) -> list[str]:
    """A list separated by commas."""
    return [part.strip() for part in text(name, default).split(",") if part.strip()]


def folder(name: str, default: str) -> Path:
    return Path(text(name, default)).expanduser().absolute()
