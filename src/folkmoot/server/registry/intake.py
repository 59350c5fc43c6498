"""From uploaded bytes to tensors that can be trusted: nothing in a file is ever run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from folkmoot.server.storage import get_storage
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.tensors import formats
from folkmoot.tensors.finite import check_finite
from folkmoot.tensors.limits import TRUSTED, Limits
from folkmoot.tensors.schema import Schema, check_fits
from folkmoot.tensors.tensor_file import TensorFile, write_tensors


@dataclass(frozen=True)
class StoredTensors:
    """A canonical TensorFile that is in the storage."""

    sha256: str
    num_bytes: int


def store_model(incoming: IncomingFile) -> tuple[str, StoredTensors]:
    """Keep the file as it came, as the template, and its tensors; return the format's name and the tensors."""
    format_name = formats.recognise(incoming.path).NAME
    with _canonical(incoming) as (draft, tensors):
        if draft != incoming.path:
            get_storage().adopt(draft, tensors.sha256)
        get_storage().adopt(incoming.path, incoming.sha256)
    return format_name, tensors


def store_update(incoming: IncomingFile, *, expected: Schema) -> StoredTensors:
    """Keep the tensors of an update that fits; raises InvalidInput naming the tensor that does not."""
    with _canonical(incoming, expected) as (draft, tensors):
        get_storage().adopt(draft, tensors.sha256)
    return tensors


@contextmanager
def _canonical(incoming: IncomingFile, expected: Schema | None = None) -> Iterator[tuple[Path, StoredTensors]]:
    """Check the tensors and give the path of their TensorFile: the file itself if it is one, else one made of it."""
    tensors = formats.open_tensors(incoming.path, limits=Limits(max_bytes=settings.MAX_UPLOAD_BYTES))
    if expected is not None:
        check_fits(expected, Schema.of(tensors))
    check_finite(tensors)
    if isinstance(tensors, TensorFile) and tensors.is_canonical:
        yield incoming.path, StoredTensors(incoming.sha256, incoming.size or 0)
        return
    draft = get_storage().new_incoming()
    try:
        written = write_tensors(draft, tensors)
        yield draft, StoredTensors(written.sha256, written.num_bytes)
    finally:
        draft.unlink(missing_ok=True)


def schema_of(sha256: str) -> Schema:
    """The schema of a TensorFile in the storage; only its header is read."""
    return TensorFile.open(get_storage().path(sha256), limits=TRUSTED).schema
