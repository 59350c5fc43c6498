"""Watching a training over the public API, and judging its models by digits that no participant has."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from folkmoot.client import Hub
from folkmoot.demo import network
from folkmoot.demo.children import Children
from folkmoot.demo.digits import Split
from folkmoot.demo.federation import Federation
from folkmoot.demo.progress import progress
from folkmoot.demo.screen import Screen
from folkmoot.errors import FolkmootError
from folkmoot.protocol.states import TrainingState
from folkmoot.tensors import open_tensors

PAUSE_SECONDS = 0.25
"""Each look costs the server as much as two participants' requests."""


class Following:
    """`hub` is the actor's; `accuracy` has one value for each round that is aggregated."""

    def __init__(self, hub: Hub, training_id: str, users: Federation, split: Split, folder: Path) -> None:
        self._hub = hub
        self._training_id = training_id
        self._participants = [user.id for user in users.participants]
        self._split = split
        self._path = folder / "judged"
        self.accuracy: list[float] = []

    def until_final(self, screen: Screen, *, watched: Sequence[Children]) -> dict[str, Any]:
        """The training as it was in the end; raises FolkmootError unless that was its completion."""
        while True:
            for children in watched:
                children.check()
            training = self._hub.training(self._training_id)
            self._judge(training)
            sizes = [len(share) for share in self._split.shares]
            screen.show(progress(training, self._participants, sizes, self.accuracy))
            if training["state"] == TrainingState.COMPLETED:
                return training
            if TrainingState(training["state"]).is_final:
                raise FolkmootError(f"the training ended in state {training['state']}: {training['reason']}")
            time.sleep(PAUSE_SECONDS)

    def _judge(self, training: dict[str, Any]) -> None:
        aggregated = sum(round["aggregated_at"] is not None for round in training["rounds"])
        while len(self.accuracy) < aggregated:
            self._hub.download_model(training["model"], self._path, round=len(self.accuracy) + 1)
            _, accuracy = network.evaluate(dict(open_tensors(self._path)), self._split.held_out)
            self.accuracy.append(accuracy)
