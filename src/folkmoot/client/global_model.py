"""The model that the hub hands out, downloaded only when it has changed, and only as far as it can have changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from folkmoot.client.hub import Hub
from folkmoot.client.task import Task
from folkmoot.tensors import Tensors, open_tensors
from folkmoot.tensors.layers import Layers


class GlobalModel:
    """Keeps the last model that was downloaded in `folder`; where only some tensors travel, in two files."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self._hub = hub
        self._whole = _Download(folder, "global-model")
        self._exchanged = _Download(folder, "exchanged-tensors")
        self._known = ("", "")
        self._round = -1
        self._etag = ""
        self._parts = [self._whole]

    def fetch(self, task: Task) -> Tensors:
        """The tensors of the task's model after `task.round` rounds, read-only and still on the disk.

        What was fetched for this very round, to test it, is not asked for again to train from it.
        """
        asked = (task.training_id, task.model_id)
        if (*self._known, self._round) != (*asked, task.round):
            self._download(task, is_known=asked == self._known)
            self._known, self._round = asked, task.round
        layers = [open_tensors(part.path) for part in self._parts]
        return Layers(layers) if len(layers) > 1 else layers[0]

    def _download(self, task: Task, *, is_known: bool) -> None:
        if is_known and task.exchange:
            # What does not travel is what it was when this training first asked for work.
            with self._exchanged.renewed() as path:
                self._hub.download_model(task.model_id, path, part="exchange", round=task.checkpoint)
            self._parts = [self._exchanged, self._whole]
        else:
            etag = self._etag if is_known else None
            with self._whole.renewed() as path:
                self._etag = self._hub.download_model(task.model_id, path, etag=etag, round=task.checkpoint)
            self._parts = [self._whole]


class _Download:
    """A file that is downloaded again and again, under one of two names in turn.

    Some file systems write all of a file to the disk that takes the name of another.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self._next = folder / f"{name}-0", folder / f"{name}-1"

    @contextmanager
    def renewed(self) -> Iterator[Path]:
        """Where to put the next one; what is there by the end is the file, and if nothing is, it stays the last one."""
        yield self._next
        if self._next.exists():
            self.path.unlink(missing_ok=True)
            self.path, self._next = self._next, self.path
