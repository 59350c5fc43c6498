"""What a training's options mean, and what they are when nobody says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

AVAILABLE = (
    "aggregation",
    "daisy_chain_period",
    "encoding",
    "exchange",
    "local",
    "min_available",
    "min_updates",
    "participants_may_steer",
    "retention",
    "round_retries",
    "round_timeout",
    "selection",
    "stop_when",
    "tests",
    "uncertainty",
)
"""Options that this version honours, or keeps for a part that reads them later."""

NOT_YET = ("privacy",)
"""Options with a meaning in the design, refused until they have one here: none is silently ignored."""


@dataclass(frozen=True)
class Options:
    """The options of one training with their defaults; times in seconds."""

    round_timeout: float = 86_400
    round_retries: int = 2
    min_updates: int | None = None
    min_available: int | None = None
    tests: str = ""
    stop_when: Mapping[str, Any] = field(default_factory=dict)
    participants_may_steer: bool | None = None
    exchange: Sequence[str] = ()
    encoding: Mapping[str, Any] = field(default_factory=dict)
    local: Mapping[str, Any] = field(default_factory=dict)
    aggregation: Mapping[str, Any] = field(default_factory=dict)
    retention: Mapping[str, Any] = field(default_factory=dict)
    uncertainty: Mapping[str, Any] = field(default_factory=dict)
    daisy_chain_period: int = 0
    selection: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Read checked options; those with no meaning here are left alone."""
        return cls(**{name: given[name] for name in cls.__dataclass_fields__ if name in given})

    def for_participants(self) -> dict[str, Any]:
        """What is told to those who are asked for an update; what was not chosen is left out."""
        encoding = {"encoding": self.encoding} if self.encoding else {}
        return {"local": self.local, **self.exchanged(), **encoding}

    def exchanged(self) -> dict[str, Any]:
        """What tells which tensors travel, where not all do."""
        return {"exchange": self.exchange} if self.exchange else {}


def warnings(aggregation_method: str, given: Mapping[str, Any]) -> list[str]:
    """What whoever creates a training may not have meant, a sentence each."""
    found = [f"options.{name} has no meaning here; it is kept as it came" for name in unknown(given)]
    if aggregation_method == "FedDC" and not given.get("daisy_chain_period"):
        found.append("FedDC without options.daisy_chain_period is FedAvg: every round is aggregated")
    if aggregation_method == "FedProx" and not given.get("local", {}).get("proximal_mu"):
        found.append("FedProx without options.local.proximal_mu is FedAvg: nothing tells participants to stay near")
    return found


def unknown(given: Mapping[str, Any]) -> list[str]:
    """Options that are kept as they came, without a meaning to the server."""
    return sorted(set(given) - set(AVAILABLE) - set(NOT_YET))
