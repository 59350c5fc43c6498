"""Naming tensors by patterns: `*` and `?` as in a shell, `!` in front for those that are not meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from folkmoot.tensors.schema import Schema


def select(schema: Schema, patterns: Sequence[str]) -> Schema:
    """The tensors whose last matching pattern has no `!`; where the first pattern has one, all others are meant.

    `["*lora*"]` are the adapters, `["!*.running_*", "!*.num_batches_tracked"]` all but the statistics of batches.
    """
    return Schema(spec for spec in schema if _is_meant(spec.name, patterns))


def without_match(schema: Schema, patterns: Iterable[str]) -> list[str]:
    """The patterns that no tensor matches: most likely a slip of the pen."""
    return [each for each in patterns if not any(fnmatchcase(spec.name, each.removeprefix("!")) for spec in schema)]


def _is_meant(name: str, patterns: Sequence[str]) -> bool:
    is_meant = patterns[0].startswith("!")
    for pattern in patterns:
        if fnmatchcase(name, pattern.removeprefix("!")):
            is_meant = not pattern.startswith("!")
    return is_meant
