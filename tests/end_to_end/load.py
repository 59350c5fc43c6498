"""Someone who never stops asking, to see what a hub in trouble says."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter

import httpx2
from harness import wait_until


class Load:
    """Asks a hub all the time, also about a training, and notes what is answered."""

    def __init__(self, world, training_id):
        self._world = world
        self._paths = (f"/api/trainings/{training_id}/", "/api/models/", "/api/notifications/?wait=0", "/readyz")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.statuses = Counter()
        self.without_a_word = []
        self.training = {"state": "I", "rounds": []}

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _ask(self):
        while not self._over.wait(0.01):
            for path in self._paths:
                with contextlib.suppress(httpx2.TransportError):
                    self._note(path, self._world.call(self._world.actor, "GET", path))

    def _note(self, path, answer):
        self.statuses[answer.status_code] += 1
        if answer.status_code == 503 and "Retry-After" not in answer.headers:
            self.without_a_word.append((path, answer.text))
        if answer.status_code == 200 and path == self._paths[0]:
            self.training = answer.json()

    def wait_for_round(self, number):
        wait_until(lambda: len(self.training["rounds"]) > number, f"round {number}", seconds=60)

    def wait_for_end(self):
        wait_until(lambda: self.training["state"] not in "IO", "the training to end", seconds=60)
        assert self.training["state"] == "C", self.training["reason"]
