"""How the training stands, made from what the hub tells its actor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from folkmoot.protocol.states import RoundState


@dataclass(frozen=True)
class Scores:
    """Of the newest model that was tested."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Row:
    """One participant; `scores` are on its own examples."""

    number: int
    num_examples: int
    has_answered: bool
    scores: Scores | None


@dataclass(frozen=True)
class Progress:
    """`round` counts from 1; `held_out` is the accuracy after each round that is aggregated."""

    round: int
    rounds: int
    rows: list[Row]
    weighted: Scores | None
    held_out: Sequence[float]


def progress(
    training: dict[str, Any], participants: Sequence[str], sizes: Sequence[int], held_out: Sequence[float]
) -> Progress:
    """`participants` are user ids, `sizes` how many examples each of them has."""
    rounds = training["rounds"] or [{"number": 0, "state": RoundState.OPEN, "arrived": []}]
    answered = _answered(rounds[-1])
    scores = _newest_scores(rounds)
    rows = [
        Row(number, size, user in answered, scores.get(user))
        for number, (user, size) in enumerate(zip(participants, sizes, strict=True), 1)
    ]
    return Progress(rounds[-1]["number"] + 1, training["target_num_updates"], rows, _weighted(rows), list(held_out))


def _answered(round: dict[str, Any]) -> set[str]:
    """Who has done what the round waits for now: an update, or in the end a test."""
    if round["state"] in (RoundState.TESTING, RoundState.CLOSED):
        return set(round["metrics"]["test"])
    return set(round["arrived"])


def _newest_scores(rounds: list[dict[str, Any]]) -> dict[str, Scores]:
    newest: dict[str, Scores] = {}
    for round in rounds:
        for user, metrics in round.get("metrics", {}).get("test", {}).items():
            newest[user] = Scores(metrics["loss"], metrics["accuracy"])
    return newest


def _weighted(rows: list[Row]) -> Scores | None:
    """By the number of examples, once everybody has tested a model."""
    scored = [(row.num_examples, row.scores) for row in rows if row.scores]
    if len(scored) < len(rows):
        return None
    total = sum(size for size, _ in scored)
    return Scores(
        sum(size * scores.loss for size, scores in scored) / total,
        sum(size * scores.accuracy for size, scores in scored) / total,
    )
