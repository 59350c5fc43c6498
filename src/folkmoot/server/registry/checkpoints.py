"""Opening what is stored: a checkpoint's tensors, its own and beneath them the ones no update changed; a template."""

from __future__ import annotations

from folkmoot.server.registry.models import Checkpoint, Model
from folkmoot.server.storage import get_storage
from folkmoot.tensors.formats import FORMATS
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
    with get_storage().file(sha256) as path:
        return TensorFile.open(path, limits=TRUSTED)


def open_template(model: Model) -> StoredTensors:
    """The file as it was uploaded, in its own format."""
    with get_storage().file(model.template_sha256) as path:
        return FORMATS[model.format].read(path, TRUSTED)
