"""Where things are, below the address of a hub."""

from __future__ import annotations

HEALTH = "/healthz"
USERS = "/api/users/"
MYSELF = "/api/users/myself/"
MODELS = "/api/models/"
TRAININGS = "/api/trainings/"
NOTIFICATIONS = "/api/notifications/"
API_DOCS = "/api/schema/swagger-ui/"


def model(model_id: str) -> str:
    return f"{MODELS}{model_id}/"


def model_metrics(model_id: str) -> str:
    return f"{MODELS}{model_id}/metrics/"


def training(training_id: str) -> str:
    return f"{TRAININGS}{training_id}/"


def training_start(training_id: str) -> str:
    return f"{TRAININGS}{training_id}/start/"


def training_clients(training_id: str) -> str:
    return f"{TRAININGS}{training_id}/clients/"
