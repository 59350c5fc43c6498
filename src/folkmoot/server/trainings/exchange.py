"""Which tensors travel between the hub and the participants of a training, and which stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

from folkmoot.errors import InvalidValue
from folkmoot.server.registry import checkpoints
from folkmoot.server.registry.intake import Expected
from folkmoot.server.registry.models import Model
from folkmoot.server.trainings.models import Training
from folkmoot.tensors.schema import Schema
from folkmoot.tensors.selection import select, without_match


def expected_update(training: Training) -> Expected:
    """What an update of the training must be, in any of its rounds."""
    model = schema_of(training.model)
    return Expected(travelling(training, model), model, training.model.tied)


def travelling(training: Training, model: Schema) -> Schema:
    """Those tensors of the model that the training's updates have."""
    patterns = training.settings.exchange
    return select(model, patterns) if patterns else model


def schema_of(model: Model) -> Schema:
    """All tensors of the model; they are the same after every round."""
    return checkpoints.schema_of(model.checkpoints.earliest("round"))


def check_patterns(model: Model, patterns: Sequence[str]) -> None:
    """Raise InvalidValue, naming the patterns, unless each means something and at least one tensor travels."""
    schema = schema_of(model)
    if strays := without_match(schema, patterns):
        raise InvalidValue(f"options.exchange: no tensor of the model matches {', '.join(strays)}")
    if not select(schema, patterns):
        raise InvalidValue("options.exchange leaves no tensor of the model that travels")
