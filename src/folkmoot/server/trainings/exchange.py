"""Which tensors travel between the hub and the participants of a training, and which stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from uuid import UUID

from folkmoot.errors import InvalidValue
from folkmoot.server.accounts.models import User
from folkmoot.server.registry import checkpoints
from folkmoot.server.registry.intake import Expected
from folkmoot.server.registry.models import Checkpoint, Model
from folkmoot.server.trainings.models import Handover, Training
from folkmoot.server.trainings.options import Options
from folkmoot.server.trainings.strategies import check_names, known_beside, update_schema
from folkmoot.tensors.encodings import Base
from folkmoot.tensors.layers import Selected
from folkmoot.tensors.schema import Schema
from folkmoot.tensors.selection import select, without_match

Tied = Sequence[Sequence[str]]
"""Names of a model's tensors that are one and the same."""


def expected_update(training: Training, participant: User, round: int) -> Expected:
    """What the participant's update must be in this round, which is open."""
    model = schema_of(training.model)
    wanted = travelling(training, model)
    base = partial(_begun_with, training, participant, wanted, round) if training.settings.encoding else None
    return Expected(update_schema(training, wanted), known_beside(training, model), training.model.tied, base)


def _begun_with(training: Training, participant: User, wanted: Schema, round: int) -> Base:
    """The tensors that travel, as the participant has them when the round begins."""
    sent = Handover.objects.filter(round__training=training, round__number=round, participant=participant)
    if handover := sent.select_related("update").first():
        return Base(handover.update.sha256, checkpoints.open_blob(handover.update.sha256))
    checkpoint = training.model.checkpoints.get(round=round)
    own = checkpoints.open_blob(checkpoint.sha256)
    if own.schema == wanted:
        return Base(checkpoint.sha256, own)
    return Base.of(Selected(checkpoints.tensors_of(checkpoint), wanted))


def travelling(training: Training, model: Schema) -> Schema:
    """Those tensors of the model that the training's updates have."""
    patterns = training.settings.exchange
    return select(model, patterns) if patterns else model


def beneath(base: Checkpoint, travelling: Schema, model: Schema) -> list[str]:
    """The files with the tensors that did not travel since `base`; what an update covers wholly is not among them."""
    if travelling == model:
        return []
    covered = checkpoints.open_blob(base.sha256).schema == travelling
    return [*([] if covered else [base.sha256]), *base.beneath]


def beneath_next(training: Training) -> list[str]:
    """The files beneath the checkpoint that the next aggregate will be."""
    if not training.settings.exchange:
        return []
    base = training.model.latest_checkpoint
    model = checkpoints.schema_of(base)
    return beneath(base, travelling(training, model), model)


def schema_of(model: Model) -> Schema:
    """All tensors of the model; they are the same after every round."""
    return _schema_of(model.pk)


# As long as there is a model it has the tensors that it was made with. Few: one may have a hundred thousand.
@lru_cache(maxsize=8)
def _schema_of(model_id: UUID) -> Schema:
    return checkpoints.schema_of(Checkpoint.objects.filter(model=model_id).earliest("round"))


def check_tensors(schema: Schema, tied: Tied, aggregation_method: str, options: Options) -> None:
    """Raise InvalidValue where the options do not go with these tensors of a model."""
    if options.exchange:
        check_patterns(schema, tied, options.exchange)
    check_names(aggregation_method, options, select(schema, options.exchange) if options.exchange else schema)


def check_patterns(schema: Schema, tied: Tied, patterns: Sequence[str]) -> None:
    """Raise InvalidValue, naming the patterns, unless each means something and at least one tensor travels."""
    if strays := without_match(schema, patterns):
        raise InvalidValue(f"options.exchange: no tensor of the model matches {', '.join(strays)}")
    travelling = {spec.name for spec in select(schema, patterns)}
    if not travelling:
        raise InvalidValue("options.exchange leaves no tensor of the model that travels")
    for names_of_one in map(set, tied):
        if names_of_one & travelling and names_of_one - travelling:
            names = ", ".join(sorted(names_of_one))
            raise InvalidValue(
                f"options.exchange: {names} are one tensor in the model; let all of them travel, or none"
            )
