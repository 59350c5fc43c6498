"""What a model consists of, without its values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from folkmoot.server.registry.checkpoints import schema_of
from folkmoot.server.registry.models import Kind, Model
from folkmoot.server.storage import get_storage
from folkmoot.tensors.formats import FORMATS
from folkmoot.tensors.limits import TRUSTED
from folkmoot.tensors.schema import Schema, StoredTensors, TensorSpec


@dataclass(frozen=True)
class Contents:
    """`trainable` tells parameters from buffers, for the tensors of which the format knows."""

    schema: Schema
    tied: Sequence[Sequence[str]]
    trainable: Mapping[str, bool]

    @property
    def num_parameters(self) -> int:
        """Counted as frameworks do: tensors that are one and the same count once."""
        return self._num_elements(self.schema)

    @property
    def num_trainable(self) -> int | None:
        """None where the format does not tell of each tensor."""
        if any(spec.name not in self.trainable for spec in self.schema):
            return None
        return self._num_elements(spec for spec in self.schema if self.trainable[spec.name])

    def _num_elements(self, specs: Iterable[TensorSpec]) -> int:
        again = {name for group in self.tied for name in group[1:]}
        return sum(spec.num_elements for spec in specs if spec.name not in again)


def contents_of(model: Model) -> Contents:
    """Read off the template and the latest checkpoint; no values are read. A MEAN model consists of nothing."""
    if model.type == Kind.MEAN:
        return Contents(Schema(()), (), {})
    template = FORMATS[model.format].read(get_storage().path(model.template_sha256), TRUSTED)
    trainable = template.trainable if isinstance(template, StoredTensors) else {}
    return Contents(schema_of(model.latest_checkpoint), model.tied, trainable)


def template_bytes(model: Model) -> int:
    """The size of the file as it was uploaded."""
    return get_storage().path(model.template_sha256).stat().st_size
