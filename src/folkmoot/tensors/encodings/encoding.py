"""What a training asks of its updates so that they get smaller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from folkmoot.errors import InvalidValue

VALUES = ("exact", "float16", "bfloat16", "int8")
MAX_LEVEL = 19
"""Beyond it zstd wants windows of more memory than a reader of ours gives it."""


@dataclass(frozen=True)
class Encoding:
    """How the floats of an update travel; whole numbers and booleans always go as they are.

    `values` is what each number becomes; "exact" keeps the model's own dtype. With int8, `block` neighbours share one
    scale. With `difference` the update holds what changed since the round's model, and with `top_k` only this
    fraction of it, the largest in magnitude of each stretch of CHUNK_ELEMENTS. `zstd` is the level at which the
    whole file is compressed. Raises InvalidValue for what is outside these ranges.
    """

    values: str = "exact"
    block: int = 256
    top_k: float | None = None
    difference: bool = False
    zstd: int | None = None

    def __post_init__(self) -> None:
        if self.values not in VALUES:
            raise InvalidValue(f"encoding.values is {self.values!r}, expected one of {', '.join(VALUES)}")
        if not _is_whole(self.block, 8, 65_536):
            raise InvalidValue(f"encoding.block is {self.block!r}, expected a whole number from 8 to 65536")
        if self.top_k is not None and not (type(self.top_k) in (int, float) and 0 < self.top_k <= 1):
            raise InvalidValue(f"encoding.top_k is {self.top_k!r}, expected a fraction over 0 and at most 1")
        if type(self.difference) is not bool:
            raise InvalidValue(f"encoding.difference is {self.difference!r}, expected true or false")
        if self.top_k is not None and not self.difference:
            raise InvalidValue("encoding.top_k needs encoding.difference: what is not sent would otherwise become 0")
        if self.zstd is not None and not _is_whole(self.zstd, 1, MAX_LEVEL):
            raise InvalidValue(f"encoding.zstd is {self.zstd!r}, expected a level from 1 to {MAX_LEVEL}")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Read the `encoding` of a training's options; `difference` may be left out where there is `top_k`."""
        if unknown := sorted(set(options) - {field.name for field in fields(cls)}):
            raise InvalidValue(f"encoding has no {unknown[0]}; it has {', '.join(field.name for field in fields(cls))}")
        return cls(**{"difference": options.get("top_k") is not None, **options})

    @property
    def leaves_unsent(self) -> bool:
        """Whether a part of the difference stays behind, so that it should be sent with the next one."""
        return self.difference and (self.values != "exact" or self.top_k is not None)


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most
