"""How much a model may take, and how many may be at work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

MIB = 1 << 20


@dataclass(frozen=True)
class SandboxLimits:
    """The bounds of one process, and those of all together.

    `seconds` is wall-clock time for loading a model, and again for each call; `wait_seconds` is how long a call waits
    for a process that is at work. `memory_bytes` is address space beyond what Python and torch take themselves. A
    process that has run for `cpu_seconds` is ended, by the kernel if need be, so that none runs on without a server.
    `max_children_per_owner` keeps one owner's models from taking all places. `cache_bytes` bounds what the idle
    processes hold: their files, and the memory that they have taken for themselves.
    """

    seconds: float = 30
    wait_seconds: float = 30
    cpu_seconds: int = 3_600
    memory_bytes: int = 4_096 * MIB
    output_bytes: int = 256 * MIB
    max_children: int = 16
    max_children_per_owner: int = 4
    cache_bytes: int = 4_096 * MIB
    start_seconds: float = 120


@dataclass(frozen=True)
class ChildSettings:
    """What a process is told before it gets a model: the warm parent hands it on."""

    memory_bytes: int
    cpu_seconds: int
    output_bytes: int
    torch_classes: tuple[str, ...]

    @classmethod
    def of(cls, limits: SandboxLimits, torch_classes: Iterable[str]) -> ChildSettings:
        return cls(limits.memory_bytes, limits.cpu_seconds, limits.output_bytes, tuple(sorted(torch_classes)))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> ChildSettings:
        return cls(**{**fields, "torch_classes": tuple(fields["torch_classes"])})

    def as_fields(self) -> dict[str, Any]:
        return asdict(self)
