"""Who takes part in the demo, and its training, made over the public API as anyone would."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from folkmoot.client import Hub
from folkmoot.demo import network
from folkmoot.tensors import write_tensors

ROUND_TIMEOUT = 60
"""Seconds after which a round that still waits for somebody fails, so that the demo ends in any case."""


@dataclass(frozen=True)
class User:
    id: str
    name: str
    password: str
    token: str


@dataclass(frozen=True)
class Federation:
    actor: User
    participants: list[User]


def register(url: str, participants: int) -> Federation:
    """Make an actor and participants: new ones in each demo, so that a data folder may be used again."""
    suffix = secrets.token_hex(3)
    with Hub(url) as hub:
        return Federation(
            _register(hub, f"actor-{suffix}", actor=True),
            [_register(hub, f"participant-{number}-{suffix}") for number in range(1, participants + 1)],
        )


def create_training(hub: Hub, clients: list[User], *, rounds: int, recipe: network.Recipe, folder: Path) -> str:
    """Upload the untrained network and create the training; returns its id."""
    path = folder / "untrained"
    write_tensors(path, network.initial_weights(recipe.seed))
    description = "Reads handwritten digits: 64 pixels, one hidden layer."
    model_id = hub.upload_model("Digits", description, path, architecture="digits-mlp")
    return hub.create_training(
        model_id,
        rounds,
        clients=[client.id for client in clients],
        metric_names=["loss", "accuracy"],
        options={"local": asdict(recipe), "round_timeout": ROUND_TIMEOUT, "round_retries": 0},
    )


def _register(hub: Hub, name: str, *, actor: bool = False) -> User:
    password = secrets.token_urlsafe(16)
    user = hub.register(name, password, actor=actor)
    return User(user["id"], name, password, user["token"])
