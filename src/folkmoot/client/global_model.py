"""The model that the hub hands out, downloaded only when it has changed."""

from __future__ import annotations

from pathlib import Path

from folkmoot.client.hub import Hub
from folkmoot.tensors import Tensors, open_tensors


class GlobalModel:
    """Keeps the last file that was downloaded in `folder`."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self._hub = hub
        self._path = folder / "global-model"
        self._model_id = ""
        self._round = -1
        self._etag = ""

    def fetch(self, model_id: str, round: int) -> Tensors:
        """The tensors of the model after `round` rounds, read-only and still on the disk.

        What was fetched for this very round, to test it, is not asked for again to train from it.
        """
        if (model_id, round) != (self._model_id, self._round):
            known = self._etag if model_id == self._model_id else None
            self._etag = self._hub.download_model(model_id, self._path, etag=known)
            self._model_id, self._round = model_id, round
        return open_tensors(self._path)
