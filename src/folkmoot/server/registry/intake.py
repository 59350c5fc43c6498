"""From uploaded bytes to tensors that can be trusted: nothing in a file is ever run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from folkmoot.errors import InvalidInput, InvalidValue
from folkmoot.server.storage import get_storage
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.tensors import formats
from folkmoot.tensors.array_blocks import Block
from folkmoot.tensors.checksums import BlockChecksums, block_checksums
from folkmoot.tensors.conform import conform
from folkmoot.tensors.encodings import Base, is_encoded, open_encoded
from folkmoot.tensors.finite import finite_blocks
from folkmoot.tensors.formats.polyglots import check_not_also_zip
from folkmoot.tensors.limits import TRUSTED
from folkmoot.tensors.schema import Schema, Tensors
from folkmoot.tensors.tensor_file import TensorFile, as_bytes, write_blocks
from folkmoot.tensors.tied import check_tied

ENCODED = "encoded"
"""In place of a format's name: an update of the training's own encoding."""


@dataclass(frozen=True)
class StoredFile:
    """A canonical TensorFile that is in the storage; `checksums` are those of its blocks."""

    sha256: str
    num_bytes: int
    checksums: bytes


@dataclass(frozen=True)
class Expected:
    """What an update must be: the tensors of `travelling`, of a model that has those of `model`.

    `base` finds what an encoded update may differ from, at the cost of reading it; without it none is taken.
    """

    travelling: Schema
    model: Schema
    tied: Sequence[Sequence[str]] = ()
    base: Callable[[], Base] | None = None


@dataclass(frozen=True)
class StoredModel:
    """A model file that is in the storage twice: as it came, and its tensors."""

    format: str
    tensors: StoredFile
    tied: Sequence[Sequence[str]]


@dataclass(frozen=True)
class StoredUpdate:
    """The tensors of an update that are in the storage, and in what format and what bytes they came."""

    format: str
    received_sha256: str
    received_bytes: int
    tensors: StoredFile


def store_model(incoming: IncomingFile) -> StoredModel:
    """Keep the file as it came, as the template, and its tensors."""
    with _called_a_model():
        kind = formats.recognise(incoming.path)
        tensors = kind.read(incoming.path, settings.MODEL_FILE_LIMITS)
    with _called_a_model(), _canonical(incoming, tensors) as (draft, stored):
        if draft != incoming.path:
            get_storage().adopt(draft, stored.sha256)
        incoming.sync()
        get_storage().adopt(incoming.path, incoming.sha256)
    return StoredModel(kind.NAME, stored, tensors.tied)


@contextmanager
def _called_a_model() -> Iterator[None]:
    """Begin what is wrong with the file as the seed does, whose clients may look for it."""
    try:
        yield
    except InvalidInput as error:
        raise type(error)(f"Invalid model file: {error.message}", code=error.code) from error


def store_update(incoming: IncomingFile, *, expected: Expected) -> StoredUpdate:
    """Keep the tensors of an update that fits; raises InvalidInput naming the tensor that does not."""
    if is_encoded(incoming.path):
        return StoredUpdate(ENCODED, incoming.sha256, incoming.size or 0, _store_encoded(incoming, expected))
    kind = formats.recognise(incoming.path)
    tensors = conform(kind.read(incoming.path, settings.MODEL_FILE_LIMITS), expected.travelling, expected.model)
    check_tied(tensors, expected.tied)
    with _canonical(incoming, tensors) as (draft, stored):
        get_storage().adopt(draft, stored.sha256)
    return StoredUpdate(kind.NAME, incoming.sha256, incoming.size or 0, stored)


def _store_encoded(incoming: IncomingFile, expected: Expected) -> StoredFile:
    if expected.base is None:
        raise InvalidValue("the update is encoded, and the training's options have no encoding: send plain tensors")
    limits, folder = settings.MODEL_FILE_LIMITS, incoming.path.parent
    tensors = open_encoded(incoming.path, folder, expected=expected.travelling, base=expected.base(), limits=limits)
    check_tied(tensors, expected.tied)
    with _canonical(incoming, tensors) as (draft, stored):
        check_not_also_zip(draft)
        get_storage().adopt(draft, stored.sha256)
    return stored


def described(path: Path, sha256: str, num_bytes: int) -> StoredFile:
    """The file with the checksums of its blocks, which the storage may adopt then."""
    file = TensorFile.open(path, limits=TRUSTED)
    return StoredFile(sha256, num_bytes, block_checksums(file.data))


@contextmanager
def _canonical(incoming: IncomingFile, tensors: Tensors) -> Iterator[tuple[Path, StoredFile]]:
    """Give the path of the tensors' TensorFile: the file itself if it is one, else one made of it.

    The values are read once: what is not finite is found, the checksums are made and the file is written on the way.
    """
    checksums = BlockChecksums()
    blocks = _watched(finite_blocks(tensors), checksums)
    if isinstance(tensors, TensorFile) and tensors.is_canonical:
        for _ in blocks:
            pass
        incoming.sync()
        yield incoming.path, StoredFile(incoming.sha256, incoming.size or 0, checksums.digest())
        return
    with get_storage().draft() as draft:
        written = write_blocks(draft, Schema.of(tensors), blocks)
        check_not_also_zip(draft)  # the file came as another format, and may be handed out as this one
        yield draft, StoredFile(written.sha256, written.num_bytes, checksums.digest())


def _watched(blocks: Iterable[Block], checksums: BlockChecksums) -> Iterator[Block]:
    for block in blocks:
        checksums.update(as_bytes(block))
        yield block
