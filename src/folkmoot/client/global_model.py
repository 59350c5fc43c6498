"""The model that the hub hands out, downloaded only when it has changed, and only as far as it can have changed."""

from __future__ import annotations

from pathlib import Path

from folkmoot.client.hub import Hub
from folkmoot.client.task import Task
from folkmoot.tensors import Tensors, open_tensors
from folkmoot.tensors.layers import Layers


class GlobalModel:
    """Keeps the last model that was downloaded in `folder`; where only some tensors travel, in two files."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self._hub = hub
        self._whole = folder / "global-model"
        self._exchanged = folder / "exchanged-tensors"
        self._known = ("", "")
        self._round = -1
        self._etag = ""
        self._paths = [self._whole]

    def fetch(self, task: Task) -> Tensors:
        """The tensors of the task's model after `task.round` rounds, read-only and still on the disk.

        What was fetched for this very round, to test it, is not asked for again to train from it.
        """
        asked = (task.training_id, task.model_id)
        if (*self._known, self._round) != (*asked, task.round):
            self._download(task, is_known=asked == self._known)
            self._known, self._round = asked, task.round
        layers = [open_tensors(path) for path in self._paths]
        return Layers(layers) if len(layers) > 1 else layers[0]

    def _download(self, task: Task, *, is_known: bool) -> None:
        if is_known and task.exchange:
            # What does not travel is what it was when this training first asked for work.
            self._hub.download_model(task.model_id, self._exchanged, part="exchange", round=task.checkpoint)
            self._paths = [self._exchanged, self._whole]
        else:
            etag = self._etag if is_known else None
            self._etag = self._hub.download_model(task.model_id, self._whole, etag=etag, round=task.checkpoint)
            self._paths = [self._whole]
