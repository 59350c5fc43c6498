"""A training to be measured, steered by its actor's client library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.hub import Account
from common.processes import MB
from folkmoot.client import Hub

TENSORS = 10
POLL_SECONDS = 50


def write_model(path: Path, megabytes: float) -> None:
    from folkmoot.tensors import write_tensors

    rng, size = np.random.default_rng(0), int(megabytes * MB) // 4 // TENSORS
    write_tensors(path, {f"layer{number}.weight": rng.normal(size=size).astype("f4") for number in range(TENSORS)})


def ending(number: int) -> bytes:
    """How an update differs from the model: in its last bytes. A hub keeps once what is the same."""
    return np.float32(number).tobytes()


def create_training(actor: Hub, model: Path, rounds: int, participants: Sequence[Account]) -> str:
    model_id = actor.upload_model("measured", "by a benchmark", model)
    clients = [account.id for account in participants]
    return actor.create_training(model_id, rounds, clients=clients, options={"tests": "never"})


def until_told(actor: Hub, kind: str) -> None:
    """Wait for a notification to the actor."""
    after, told = None, False
    while not told:
        notifications, after = actor.notifications(after, wait=POLL_SECONDS)
        told = any(each.type == kind for each in notifications)
