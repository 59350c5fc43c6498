"""Updates seen as models: from when they come in until they are aggregated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, QuerySet

from folkmoot.errors import NotFound
from folkmoot.server.registry import downloads
from folkmoot.server.registry.contents import Contents, contents_of
from folkmoot.server.registry.downloads import Download
from folkmoot.server.registry.models import Checkpoint, Metric, Model, Phase
from folkmoot.server.registry.moments import MomentFile
from folkmoot.server.registry.preprocessing import PreprocessingFile, preprocessing_of
from folkmoot.server.trainings import exchange
from folkmoot.server.trainings.models import Training, Update
from folkmoot.server.trainings.named_rounds import RoundName, number_of
from folkmoot.server.trainings.strategies import update_schema


def find_model(pk: UUID) -> Model | Update | None:
    """The global model with this id, or the local one."""
    return Model.objects.filter(pk=pk).first() or Update.objects.local_models().filter(pk=pk).first()


def local_models(training: Training) -> QuerySet[Update]:
    """The training's local models, the oldest round's first."""
    return Update.objects.local_models().filter(round__training=training).order_by("round__number", "participant")


def global_models(training: Training) -> QuerySet[Model]:
    """The training's model, unless it was removed."""
    return Model.objects.with_details().filter(training=training)


def newest_local_models(training: Training) -> QuerySet[Update]:
    """Of each participant the newest."""
    of_the_same = Update.objects.filter(round__training=training, participant=OuterRef("participant"))
    newer = of_the_same.filter(round__number__gt=OuterRef("round__number"))
    return local_models(training).filter(~Exists(newer))


def download(model: Model | Update, *, round: RoundName = None, **wanted: Any) -> Download | MomentFile:
    """The model, global or local, as a file; raises what `registry.downloads.download` raises."""
    number = number_of(model, round)
    if isinstance(model, Update):
        return _local_download(model, round=number, **wanted)
    return downloads.download(model, round=number, **wanted)


def contents(model: Model | Update) -> Contents:
    """What the model consists of; a local one has what the global one has."""
    return contents_of(model if isinstance(model, Model) else model.base_model)


def preprocessing(model: Model | Update) -> PreprocessingFile:
    """What inputs go through first; a local model shares that of the global one. Raises NotFound if there is none."""
    return preprocessing_of(model if isinstance(model, Model) else model.base_model)


def metrics(model: Model | Update) -> QuerySet[Metric]:
    """What was reported for the model; for a local one, what its participant has sent along with it."""
    if isinstance(model, Model):
        return model.metrics.all()
    sent = model.base_model.metrics.filter(phase=Phase.TRAIN, step=model.round.number)
    return sent.filter(reporter=model.participant_id)


def as_global(model: Model | Update, what: str) -> Model:
    """The model, if it is a global one; NotFound says where `what` is, which local ones do not have."""
    if isinstance(model, Update):
        raise NotFound(f"Local model {model.pk} has no {what}; ask for that of model {model.base_model.pk}.")
    return model


def _local_download(update: Update, *, round: int | None = None, **wanted: Any) -> Download:
    if round not in (None, update.round.number):
        raise NotFound(f"Local model {update.pk} is of round {update.round.number} and of no other.")
    training = update.round.training
    model = exchange.schema_of(update.base_model)
    travelling = exchange.travelling(training, model)
    # What came beside the model's own tensors is the strategy's alone.
    is_more = update_schema(training, travelling) != travelling
    only = (travelling if wanted.get("part") == downloads.EXCHANGE else model) if is_more else None
    tensors = _as_checkpoint(update, exchange.beneath(update.base_model.latest_checkpoint, travelling, model))
    return downloads.download_local(update.pk, tensors, only=only, **wanted)


def _as_checkpoint(update: Update, beneath: Sequence[str]) -> Checkpoint:
    """The update's tensors over those of the global model that did not travel; the row is not saved."""
    return Checkpoint(model=update.base_model, round=update.round.number, sha256=update.sha256, beneath=beneath)
