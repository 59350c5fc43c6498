"""Writes that may be lost in a power cut, for which nobody waits until the disk has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection


@contextmanager
def forgettable() -> Iterator[None]:
    """What is written in the block, outside any transaction that is open already, is not waited for.

    A power cut may undo it, and then also what was written after it, but never something that was committed outside
    such a block: that takes to the disk whatever came before. A process that is killed loses nothing. PostgreSQL, whose
    sessions wait for the disk together, keeps it all.
    """
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        yield
        return
    _synchronous("NORMAL")
    try:
        yield
    finally:
        _synchronous("FULL")


def _synchronous(level: str) -> None:
    # https://www.sqlite.org/pragma.html#pragma_synchronous
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA synchronous={level}")
