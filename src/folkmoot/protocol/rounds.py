"""How rounds are counted: from 0 for programs, from 1 for people."""

from __future__ import annotations


def ordinal(number: int) -> int:
    """What a sentence calls the round that programs know by `number`; the checkpoint that it makes has that number."""
    return number + 1
