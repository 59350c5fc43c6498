"""What a model looks like as a file: its template with the tensors of a checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from folkmoot.errors import NotFound
from folkmoot.server.registry.checkpoints import tensors_of
from folkmoot.server.registry.models import Checkpoint, Model
from folkmoot.server.storage import get_storage
from folkmoot.tensors import formats
from folkmoot.tensors.limits import TRUSTED
from folkmoot.tensors.tensor_file import TensorFile

WRITER_VERSION = "1"
"""Counted up when a writer's bytes change, so that no cache takes old bytes for new ones."""


@dataclass(frozen=True)
class Download:
    """A model file to be sent; `etag` is known before the file is made."""

    model: Model
    checkpoint: Checkpoint

    @property
    def etag(self) -> str:
        layers = (self.checkpoint.sha256, *self.checkpoint.beneath)
        parts = (self.model.template_sha256, *layers, self.model.format, WRITER_VERSION)
        return f'"{hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]}"'

    @property
    def is_upload(self) -> bool:
        """Whether this is the file as it was uploaded, byte for byte."""
        is_copy = self.model.parent_round is not None
        return not is_copy and self.checkpoint == self.model.checkpoints.order_by("round").first()

    def path(self) -> tuple[Path, bool]:
        """Return a file with the bytes, and whether it is the caller's to remove."""
        storage = get_storage()
        template = storage.path(self.model.template_sha256)
        if self.is_upload:
            return template, False
        tensors = tensors_of(self.checkpoint)
        is_plain = self.model.format == "safetensors" and TensorFile.open(template, limits=TRUSTED).is_canonical
        if is_plain and isinstance(tensors, TensorFile):
            return tensors.path, False
        made = storage.new_incoming()
        formats.FORMATS[self.model.format].write(template, tensors, made)
        return made, True


def download(model: Model, *, round: int | None = None) -> Download:
    """The model after `round` rounds, by default the latest; NotFound if that checkpoint is not there."""
    wanted = model.round if round is None else round
    checkpoint = model.checkpoints.filter(round=wanted).first()
    if checkpoint is None:
        raise NotFound(f"Model {model.pk} has no checkpoint {wanted}.")
    return Download(model, checkpoint)
