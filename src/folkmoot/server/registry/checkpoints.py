"""The tensors of a checkpoint: those in its own file, and beneath them the ones that no update changed."""

from __future__ import annotations

from folkmoot.server.registry.models import Checkpoint
from folkmoot.server.storage import get_storage
from folkmoot.tensors.layers import Layers
from folkmoot.tensors.limits import TRUSTED
from folkmoot.tensors.schema import Schema, StoredTensors
from folkmoot.tensors.tensor_file import TensorFile


def tensors_of(checkpoint: Checkpoint) -> StoredTensors:
    """All tensors of the model, still on the disk."""
    layers = [open_blob(sha256) for sha256 in (checkpoint.sha256, *checkpoint.beneath)]
    return Layers(layers) if len(layers) > 1 else layers[0]


def schema_of(checkpoint: Checkpoint) -> Schema:
    """The model's schema; only headers are read."""
    return tensors_of(checkpoint).schema


def open_blob(sha256: str) -> TensorFile:
    """A TensorFile in the storage; it was checked when it came in."""
    return TensorFile.open(get_storage().path(sha256), limits=TRUSTED)
