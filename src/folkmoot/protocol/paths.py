"""Where things are, below the address of a hub."""

from __future__ import annotations

HEALTH = "/healthz"
USERS = "/api/users/"
MYSELF = "/api/users/myself/"
MODELS = "/api/models/"
TRAININGS = "/api/trainings/"
UPLOADS = "/api/uploads/"
NOTIFICATIONS = "/api/notifications/"
INFERENCE = "/api/inference/"
API_DOCS = "/api/schema/swagger-ui/"


def model(model_id: str) -> str:
    return f"{MODELS}{model_id}/"


def model_metrics(model_id: str) -> str:
    return f"{MODELS}{model_id}/metrics/"


def model_calibration(model_id: str) -> str:
    return f"{MODELS}{model_id}/calibration/"


def model_swag(model_id: str) -> str:
    return f"{MODELS}{model_id}/swag/"


def model_update(model_id: str) -> str:
    return f"{MODELS}{model_id}/update/"


def upload(upload_id: str) -> str:
    return f"{UPLOADS}{upload_id}/"


def upload_commit(upload_id: str) -> str:
    return f"{UPLOADS}{upload_id}/commit/"


def training(training_id: str) -> str:
    return f"{TRAININGS}{training_id}/"


def training_command(training_id: str, name: str) -> str:
    """Of `start`, `pause`, `resume`, `stop`, `retry` and `clone`."""
    return f"{TRAININGS}{training_id}/{name}/"


def training_events(training_id: str) -> str:
    return f"{TRAININGS}{training_id}/events/"


def training_explain(training_id: str) -> str:
    return f"{TRAININGS}{training_id}/explain/"


def training_progress(training_id: str) -> str:
    return f"{TRAININGS}{training_id}/progress/"


def training_clients(training_id: str) -> str:
    return f"{TRAININGS}{training_id}/clients/"
