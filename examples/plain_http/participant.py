"""A participant: it is told what to do, by a push to its own endpoint or by asking, and answers over HTTP."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from digits import Digits, accuracy, from_bytes, moments, probabilities, to_bytes, train
from rest import Hub

Notification = dict[str, Any]


class Listener:
    """Notifications as the hub pushes them; `endpoint` is what to register as `message_endpoint`."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        notifications: queue.Queue[Notification] = queue.Queue()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                notifications.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                # Accept at once and train afterwards: the hub waits some seconds for an answer, no epochs.
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Not a line for every request."""

        self._notifications = notifications
        self._server = HTTPServer((host, port), Handler)
        self.endpoint = f"http://{host}:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __iter__(self) -> Iterator[Notification]:
        while True:
            yield self._notifications.get()


class Poller:
    """Notifications as the hub holds them ready, for a participant that nobody can reach."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        answer = hub.call("GET", "notifications/").json()
        self._waiting, self._last_id = answer["notifications"], answer["last_id"]

    def __iter__(self) -> Iterator[Notification]:
        while True:
            while self._waiting:
                yield self._waiting.pop(0)
            params = {"after": self._last_id, "wait": 50}
            answer = self._hub.call("GET", "notifications/", params=params).json()
            self._waiting, self._last_id = answer["notifications"], answer["last_id"]


class Participant:
    """Answers notifications, one after another; `told` are those that it has had, `sent` the ids of its updates."""

    def __init__(self, hub: Hub, user_id: str, digits: Digits, notifications: Listener | Poller) -> None:
        self.hub = hub
        self.id = user_id
        self.digits = digits
        self.told: list[Notification] = []
        self.sent: list[str] = []
        self._notifications = notifications

    def take_part(self) -> None:
        """Work until the training is over, or over for us."""
        for notification in self._notifications:
            self.told.append(notification)
            body = notification["body"]
            match notification["notification_type"]:
                case "UPDATE_ROUND_START":
                    # What the training's creator wrote for the participants, if anything.
                    proximal_mu = body.get("local", {}).get("proximal_mu", 0)
                    self.train(body["global_model_uuid"], body["round"], proximal_mu=proximal_mu)
                case "SWAG_ROUND_START":
                    self.collect_moments(body["global_model_uuid"], body["round"])
                case "MODEL_TEST_ROUND":
                    self.test(body["global_model_uuid"])
                case "TRAINING_FINISHED" | "CLIENT_REMOVED":
                    return

    def train(self, model_id: str, round: int, *, proximal_mu: float = 0) -> None:
        """Train the model, which may be another participant's, and send it to the id that was announced."""
        model = from_bytes(self.hub.download_model(model_id))
        loss = train(model, self.digits, proximal_mu=proximal_mu, seed=round)
        update_id = self.hub.upload_update(model_id, round, len(self.digits), to_bytes(model), self.id, loss)
        self.sent.append(update_id)

    def collect_moments(self, model_id: str, round: int) -> None:
        model = from_bytes(self.hub.download_model(model_id))
        first, second = moments(model, self.digits)
        self.hub.upload_moments(model_id, round, len(self.digits), to_bytes(first), to_bytes(second))

    def test(self, model_id: str) -> None:
        """Tell how well the model does with our own digits."""
        model = from_bytes(self.hub.download_model(model_id))
        self.hub.upload_metrics(model_id, {"accuracy": accuracy(probabilities(model, self.digits), self.digits)})
