"""The moments that SWAG makes a distribution of models of: taken in, and handed out as single tensors.

Source: Maddox et al. 2019, Algorithm 1, https://arxiv.org/abs/1902.02476
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from django.conf import settings

from folkmoot.errors import InvalidValue, NotFound
from folkmoot.server.registry.checkpoints import open_blob, open_template
from folkmoot.server.registry.intake import StoredFile, described
from folkmoot.server.registry.models import Model, Moments
from folkmoot.server.storage import get_storage
from folkmoot.server.storage.made import MadeFiles, OpenedFile
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.tensors import formats, write_tensors
from folkmoot.tensors.finite import check_finite
from folkmoot.tensors.formats.torch import format as torch_format
from folkmoot.tensors.layers import Selected
from folkmoot.tensors.schema import Schema, TensorSpec, is_float
from folkmoot.tensors.tensor_file import WrittenFile

FIRST = "first_moment"
SECOND = "second_moment"


@dataclass(frozen=True)
class StoredMoments:
    """Moments that are in the storage; by `received_sha256` of both files as they came, they are known again."""

    received_sha256: str
    tensors: StoredFile


@dataclass(frozen=True)
class MomentFile:
    """One of a model's moments, to be sent as a tensor that torch has saved."""

    model: Model
    moments: Moments
    part: str

    @property
    def etag(self) -> str:
        return f'"{self._key}"'

    @property
    def filename(self) -> str:
        return f"model-{self.model.pk}-{self.part}.pt"

    def open(self) -> OpenedFile:
        storage = get_storage()
        made = MadeFiles(storage.root / "made", limit=settings.DOWNLOAD_CACHE_BYTES, new_draft=storage.new_incoming)
        return made.open(self._key, self._make)

    @property
    def _key(self) -> str:
        return hashlib.sha256(f"{self.part} {self.moments.sha256}".encode()).hexdigest()[:32]

    def _make(self, output: Path) -> WrittenFile:
        return torch_format.export_tensor(open_blob(self.moments.sha256)[self.part], output)


def moment_file(model: Model, part: str, *, round: int | None = None, format: str | None = None) -> MomentFile:
    """The moment after so many rounds, by default the newest that there is; raises NotFound, InvalidValue."""
    if format not in (None, torch_format.NAME):
        raise InvalidValue(f"part={part} is always {torch_format.NAME}; leave `as` out")
    known = Moments.objects.filter(checkpoint__model=model, checkpoint__removed_at=None)
    if round is not None:
        known = known.filter(checkpoint__round=round)
    newest = known.order_by("-checkpoint__round").first()
    if newest is None:
        after = "" if round is None else f" after round {round}"
        raise NotFound(f"Model {model.pk} has no moments{after}.")
    return MomentFile(model, newest, part)


def received_digest(first: IncomingFile, second: IncomingFile) -> str:
    """By which both files together are known again."""
    return hashlib.sha256(f"{first.sha256} {second.sha256}".encode()).hexdigest()


def store_moments(model: Model, first: IncomingFile, second: IncomingFile) -> StoredMoments:
    """Keep both moments; raises InvalidInput where one is no tensor, or not of the model's parameters."""
    schema = moments_schema(model)
    opened = {FIRST: _opened(FIRST, first, schema), SECOND: _opened(SECOND, second, schema)}
    moments = Selected(opened, schema)
    draft = get_storage().new_incoming()
    try:
        with np.errstate(over="ignore"):  # what does not fit into float32 is infinite, and found to be
            check_finite(moments)
            written = write_tensors(draft, moments)
        stored = described(draft, written.sha256, written.num_bytes)
        get_storage().adopt(draft, stored.sha256)
    finally:
        draft.unlink(missing_ok=True)
    return StoredMoments(received_digest(first, second), stored)


def moments_schema(model: Model) -> Schema:
    """Of the file with both: float32, or float64 where the model has that, as long as all parameters together.

    Where the model's file does not tell parameters from buffers, all its floats count.
    """
    specs = _parameters(model)
    shape = (sum(spec.num_elements for spec in specs),)
    dtype = "F64" if any(spec.dtype == "F64" for spec in specs) else "F32"
    return Schema([TensorSpec(FIRST, dtype, shape), TensorSpec(SECOND, dtype, shape)])


def _parameters(model: Model) -> list[TensorSpec]:
    template = open_template(model)
    # One that goes by several names is one, as it is to model.parameters().
    again = {name for group in model.tied for name in group[1:]}
    specs, known = [spec for spec in template.schema if spec.name not in again], template.parameters
    return [spec for spec in specs if (is_float(spec.numpy_dtype) if known is None else spec.name in known)]


def _opened(part: str, incoming: IncomingFile, schema: Schema) -> npt.NDArray[Any]:
    tensor = np.asarray(formats.open_tensor(incoming.path, limits=settings.MODEL_FILE_LIMITS))
    expected = schema[0].num_elements
    if not is_float(tensor.dtype):
        raise InvalidValue(f"{part}_file holds {tensor.dtype}; expected floats")
    if tensor.size != expected:
        raise InvalidValue(f"{part}_file has {tensor.size} values; the model has {expected} parameters")
    return tensor.reshape(-1)
