"""The calls to a hub's HTTP API: `requests`, with name and password on every one."""

from __future__ import annotations

from typing import Any

import requests


class Refused(Exception):
    """The hub answered with an error; `status` is the HTTP status, the message is the hub's."""

    def __init__(self, answer: requests.Response) -> None:
        super().__init__(f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text}")
        self.status = answer.status_code


class Hub:
    """The hub at `url`, spoken to by one user."""

    def __init__(self, url: str, username: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._credentials = (username, password)

    def register(self, **fields: Any) -> dict[str, Any]:
        """Make this user."""
        username, password = self._credentials
        return self.call("POST", "users/", json={"username": username, "password": password, **fields}).json()

    def call(self, method: str, path: str, **request: Any) -> requests.Response:
        """What the hub answers below /api/; raises Refused for an error."""
        answer = requests.request(method, f"{self.url}/api/{path}", auth=self._credentials, timeout=90, **request)
        if not answer.ok:
            raise Refused(answer)
        return answer

    def upload_model(self, name: str, file: bytes, *, input_shape: list[int | None]) -> str:
        fields = {"name": name, "description": "Reads handwritten digits", "input_shape": list(map(str, input_shape))}
        files = {"model_file": ("model.pt", file)}
        return self.call("POST", "models/", data=fields, files=files).json()["model_id"]

    def upload_mean_model(self, name: str, members: list[str]) -> str:
        """A model that is the mean of these; it has no file."""
        fields = {"name": name, "description": "An ensemble", "type": "MEAN", "models": members}
        return self.call("POST", "models/", json=fields).json()["model_id"]

    def download_model(self, model_id: str) -> bytes:
        return self.call("GET", f"models/{model_id}/").content

    def upload_update(self, model_id: str, round: int, sample_size: int, file: bytes, owner: str, loss: float) -> str:
        """Send what was trained in a round; returns the id of the local model that it is to the hub."""
        fields = {"round": round, "sample_size": sample_size, "owner": owner}
        metrics = {"metric_names": ["loss"], "metric_values": [loss]}
        files = {"model_file": ("update.pt", file)}
        return self.call("POST", f"models/{model_id}/", data=fields | metrics, files=files).json()["update_id"]

    def upload_metrics(self, model_id: str, metrics: dict[str, float]) -> None:
        """Answer a test round."""
        form = {"metric_names": list(metrics), "metric_values": list(metrics.values())}
        self.call("POST", f"models/{model_id}/metrics/", data=form)

    def upload_moments(self, model_id: str, round: int, sample_size: int, first: bytes, second: bytes) -> None:
        files = {"first_moment_file": ("first.pt", first), "second_moment_file": ("second.pt", second)}
        self.call("POST", f"models/{model_id}/swag/", data={"round": round, "sample_size": sample_size}, files=files)

    def create_training(self, **fields: Any) -> str:
        return self.call("POST", "trainings/", json=fields).json()["training_id"]

    def start(self, training_id: str) -> None:
        self.call("POST", f"trainings/{training_id}/start/")

    def training(self, training_id: str) -> dict[str, Any]:
        return self.call("GET", f"trainings/{training_id}/").json()
