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
        self._etag = ""

    def fetch(self, model_id: str) -> Tensors:
        """The latest tensors of the model, read-only and still on the disk."""
        known = self._etag if model_id == self._model_id else None
        etag = self._hub.download_model(model_id, self._path, etag=known)
        tensors = open_tensors(self._path)
        self._model_id, self._etag = model_id, etag
        return tensors
