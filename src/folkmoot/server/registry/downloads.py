"""What a model looks like as a file: its template with the tensors of a checkpoint, or these in another format."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal
from uuid import UUID

from django.conf import settings

from folkmoot.errors import InvalidValue, MadeOfModels, NotFound, Removed
from folkmoot.server.registry.checkpoints import open_blob, tensors_of
from folkmoot.server.registry.models import Checkpoint, Kind, Model, Origin
from folkmoot.server.registry.moments import FIRST, SECOND, MomentFile, moment_file
from folkmoot.server.rows import the_one
from folkmoot.server.storage import get_storage
from folkmoot.server.storage.made import MadeFiles, OpenedFile
from folkmoot.tensors import formats
from folkmoot.tensors.formats import EXPORTED, FORMATS, npz, safetensors
from folkmoot.tensors.layers import Selected
from folkmoot.tensors.schema import Schema
from folkmoot.tensors.tensor_file import WrittenFile

WRITER_VERSION = "2"
"""Counted up when a writer's bytes change, so that no cache takes old bytes for new ones."""

SEED_EXTENSION = ".pt"
"""The seed's name for a model, whatever the format: existing clients look for it."""

EXCHANGE = "exchange"
"""The part of a model that travels between the hub and the participants."""

STATE = "state"
"""What is kept beside a model for its training's strategy to go on with."""

Source = Literal["upload", "template", "tensors", "own"]
"""What the bytes are made of: the upload itself, the template with tensors, all tensors, the checkpoint's own file."""


@dataclass(frozen=True)
class Download:
    """A model file to be sent; `etag` is known before the file is made."""

    model: Model
    checkpoint: Checkpoint
    source: Source
    format: str
    filename: str
    only: Schema | None = None
    """Those of the tensors that are sent, where the file has others, too."""

    @property
    def etag(self) -> str:
        return f'"{self._key}"'

    def open(self) -> OpenedFile:
        """The file as it is stored, or one that is made of what is stored."""
        storage = get_storage()
        if blob := self._blob():
            with storage.file(blob) as path:
                return OpenedFile(path.open("rb"), blob)
        made = MadeFiles(storage.root / "made", limit=settings.DOWNLOAD_CACHE_BYTES, new_draft=storage.new_incoming)
        return made.open(self._key, self._make)

    @property
    def _key(self) -> str:
        """Names all that the bytes depend on."""
        layers = (self.checkpoint.sha256, *self.checkpoint.beneath)
        only = [hashlib.sha256(self.only.header()).hexdigest()] if self.only else []
        parts = (self.source, self.model.template_sha256, *layers, self.format, WRITER_VERSION, *self._libraries, *only)
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]

    @property
    def _libraries(self) -> list[str]:
        # Only a template has members that are compressed, and another zlib may make other bytes of them.
        is_compressed = self.source == "template" and self.format == npz.NAME
        return [zlib.ZLIB_RUNTIME_VERSION] if is_compressed else []

    def _blob(self) -> str | None:
        """The digest of the stored file that has these very bytes, if there is one."""
        if self.source == "upload":
            return self.model.template_sha256
        if self.only:
            return None
        is_one_file = self.format == safetensors.NAME and not self.checkpoint.beneath
        if self.source == "own" or (is_one_file and self._is_canonical):
            return self.checkpoint.sha256
        return None

    @property
    def _is_canonical(self) -> bool:
        return self.source == "tensors" or _is_canonical(self.model.template_sha256)

    def _make(self, output: Path) -> WrittenFile:
        kind, tensors = formats.FORMATS[self.format], tensors_of(self.checkpoint)
        if self.only:
            tensors = Selected(tensors, self.only)
        if self.source == "template":
            with get_storage().file(self.model.template_sha256) as template:
                return kind.write(template, tensors, output)
        return kind.export(tensors, output)


# Named by what they consist of, the bytes of a file never change.
@lru_cache(maxsize=10_000)
def _is_canonical(sha256: str) -> bool:
    return open_blob(sha256).is_canonical


def download(
    model: Model, *, round: int | None = None, format: str | None = None, part: str | None = None
) -> Download | MomentFile:
    """The model after `round` rounds, by default the latest, in the format that it came in or in another.

    Raises NotFound if that checkpoint is not there, Removed if it no longer is, InvalidValue for a format that the
    model cannot have, MadeOfModels for one that has no tensors of its own.
    """
    if model.type == Kind.MEAN:
        members = ", ".join(str(each.member_id) for each in model.memberships.all())
        raise MadeOfModels(f"Model {model.pk} is the mean of other models and no file of its own: {members}.")
    if part in (FIRST, SECOND):
        return moment_file(model, part, round=round, format=format)
    checkpoint = _checkpoint(model, model.round if round is None else round)
    if part == STATE:
        return _state(checkpoint, format)
    if part == EXCHANGE:
        # What a copy began with lies apart as another training exchanged it.
        return _exchanged(model.pk, checkpoint, format, is_apart=checkpoint.round != model.parent_round)
    return _whole(model.pk, checkpoint, format, is_upload=checkpoint.origin == Origin.UPLOAD)


def download_local(
    id: UUID,  # noqa: A002
    tensors: Checkpoint,
    *,
    format: str | None = None,
    part: str | None = None,
    only: Schema | None = None,
) -> Download:
    """A model of these tensors, which need not be a checkpoint of the global one, under an id of its own.

    `only` leaves out what came beside the model's own tensors.
    """
    if part in (FIRST, SECOND, STATE):
        raise NotFound(f"Local model {id} has no {'state' if part == STATE else 'moments'}.")
    if part == EXCHANGE:
        return replace(_exchanged(id, tensors, format, is_apart=True), only=only)
    return replace(_whole(id, tensors, format, is_upload=False), only=only)


def offered(model: Model) -> list[str]:
    """The formats in which the model can be downloaded, the one it was uploaded in first."""
    return [model.format, *(name for name in EXPORTED if name != model.format)]


def _checkpoint(model: Model, round: int) -> Checkpoint:
    checkpoint = the_one(model.checkpoints.filter(round=round).defer("checksums"))
    if checkpoint is None:
        raise NotFound(f"Model {model.pk} has no checkpoint {round}.")
    if checkpoint.removed_at is not None:
        raise Removed(f"Checkpoint {round} of model {model.pk} was removed, as its training's retention has it.")
    return checkpoint


def _whole(id: UUID, checkpoint: Checkpoint, format: str | None, *, is_upload: bool) -> Download:  # noqa: A002
    model = checkpoint.model
    if format is not None and format not in offered(model):
        raise InvalidValue(f"`as` is {format[:50]!r}; this model can be had as {', '.join(offered(model))}")
    source: Source = "upload" if is_upload else "template"
    if format not in (None, model.format):
        source = "tensors"
    extension = SEED_EXTENSION if format is None else FORMATS[format].EXTENSION
    return Download(model, checkpoint, source, format or model.format, f"model-{id}{extension}")


def _state(checkpoint: Checkpoint, format: str | None) -> Download:
    """What the training's strategy goes on with from here, such as the server's control variates."""
    model, made = checkpoint.model, format or safetensors.NAME
    if not checkpoint.state_sha256:
        raise NotFound(f"Model {model.pk} has no state after {checkpoint.round} rounds: nothing was kept beside it.")
    if made not in (safetensors.NAME, npz.NAME):
        raise InvalidValue(f"`as` is {made[:50]!r}; the state can be had as {safetensors.NAME}, {npz.NAME}")
    file = Checkpoint(model=model, round=checkpoint.round, sha256=checkpoint.state_sha256)
    return Download(model, file, "tensors", made, f"state-{model.pk}{FORMATS[made].EXTENSION}")


def _exchanged(id: UUID, checkpoint: Checkpoint, format: str | None, *, is_apart: bool) -> Download:  # noqa: A002
    """The tensors that travel, where they are apart from the others; else all of them."""
    if format not in (None, safetensors.NAME):
        raise InvalidValue(f"part={EXCHANGE} is always {safetensors.NAME}; leave `as` out")
    source: Source = "own" if checkpoint.beneath and is_apart else "tensors"
    return Download(checkpoint.model, checkpoint, source, safetensors.NAME, f"model-{id}{safetensors.EXTENSION}")
