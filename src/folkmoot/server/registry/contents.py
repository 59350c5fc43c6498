"""What a model consists of, without its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from folkmoot.server.registry.checkpoints import open_template, schema_of
from folkmoot.server.registry.models import Kind, Model
from folkmoot.server.storage import get_storage
from folkmoot.tensors.parameters import count_parameters
from folkmoot.tensors.schema import Schema


@dataclass(frozen=True)
class Contents:
    """`trainable` tells parameters from buffers, for the tensors of which the format knows."""

    schema: Schema
    tied: Sequence[Sequence[str]]
    trainable: Mapping[str, bool]

    @property
    def num_parameters(self) -> int:
        return count_parameters(self.schema, self.tied, self.trainable).total

    @property
    def num_trainable(self) -> int | None:
        return count_parameters(self.schema, self.tied, self.trainable).trainable


def contents_of(model: Model) -> Contents:
    """Read off the template and the latest checkpoint; no values are read. A MEAN model consists of nothing."""
    if model.type == Kind.MEAN:
        return Contents(Schema(()), (), {})
    template = open_template(model)
    return Contents(schema_of(model.latest_checkpoint), model.tied, template.trainable)


def template_bytes(model: Model) -> int:
    """The size of the file as it was uploaded."""
    with get_storage().file(model.template_sha256) as path:
        return path.stat().st_size
