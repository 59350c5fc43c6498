"""How much a file may ask of whoever reads it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a reader accepts before it answers TooLarge.

    `max_bytes` bounds the file, and for compressed formats also what it expands to; `max_ratio` is the
    most that one compressed member may expand. `torch_classes` are those, as "module.Name", that a whole torch
    module may name beyond torch's own: whoever downloads such a file runs them.
    """

    max_bytes: int = 16 * 1024 * MIB
    max_header_bytes: int = 16 * MIB
    max_tensors: int = 100_000
    max_name_length: int = 512
    max_members: int = 4_096
    max_ratio: int = 200
    max_nesting: int = 100
    max_pickle_ops: int = 2_000_000
    torch_classes: Container[str] = frozenset()


class _Everything:
    def __contains__(self, name: object) -> bool:
        return True


_NONE = 1 << 62

TRUSTED = Limits(
    max_bytes=_NONE,
    max_header_bytes=_NONE,
    max_tensors=_NONE,
    max_name_length=_NONE,
    max_members=_NONE,
    max_ratio=_NONE,
    max_nesting=_NONE,
    max_pickle_ops=_NONE,
    torch_classes=_Everything(),
)
"""For files that were checked when they came in, against limits that may have been others."""
