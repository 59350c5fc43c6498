"""What is handed to the sandbox: a model's files, and how its answer is to be sampled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from folkmoot.errors import InvalidValue


@dataclass(frozen=True)
class ModelPart:
    """A file, known by its digest; the sandbox gets its bytes, and never the path."""

    sha256: str
    path: Path = field(compare=False)


@dataclass(frozen=True)
class SandboxModel:
    """A model as it is to be asked. Two that are equal are answered by the same process.

    `weights` are the tensors of a checkpoint, or one file for each member of an ensemble; without any, the template's
    own count. `moments` are those of SWAG. `architecture` is what a template of mere weights is put into.
    """

    owner: str
    template: ModelPart
    weights: tuple[ModelPart, ...] = ()
    moments: ModelPart | None = None
    preprocessing: ModelPart | None = None
    architecture: str | None = None

    def parts(self) -> Iterator[tuple[str, ModelPart]]:
        """Each file with its role."""
        yield "template", self.template
        yield from (("weights", part) for part in self.weights)
        if self.moments is not None:
            yield "moments", self.moments
        if self.preprocessing is not None:
            yield "preprocessing", self.preprocessing


METHODS = ("NONE", "ENSEMBLE", "MC_DROPOUT", "SWAG")


@dataclass(frozen=True)
class Sampling:
    """How the members of a prediction come about.

    NONE and ENSEMBLE: one pass for each file of weights. MC_DROPOUT: `samples` passes for each, with dropout at
    work. SWAG: `samples` draws of the parameters. Equal seeds give equal samples.
    """

    method: str = "NONE"
    samples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidValue(f"method {self.method!r} is not known; known are: {', '.join(METHODS)}")
        if self.samples < 1:
            raise InvalidValue(f"samples is at least 1, not {self.samples}")
