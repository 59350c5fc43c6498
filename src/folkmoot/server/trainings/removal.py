"""Removing a model: only once nothing needs it as it is."""

from __future__ import annotations

from django.db import transaction

from folkmoot.errors import InUse, NotFound
from folkmoot.protocol.states import TrainingState
from folkmoot.server.registry import services
from folkmoot.server.registry.models import Model
from folkmoot.server.trainings.models import Training, Update
from folkmoot.server.trainings.moves import locked_if_there


@transaction.atomic
def remove_model(model: Model | Update) -> None:
    """Remove the model with its files; a training that ended with it keeps its history.

    Raises InUse while a training or an ensemble needs it, and for local models, which are a round's.
    """
    if isinstance(model, Update):
        raise _used_by(model.round.training, model)
    # Its training before it, as by whoever steers that; and itself, as by whoever begins to train it.
    locked_if_there(model=model)
    found = Model.objects.select_for_update().filter(pk=model.pk).first()
    if found is None:
        raise NotFound(f"Model {model.pk} not found.")
    training = Training.objects.filter(model=found).first()
    _check_unused(found, training)
    if training is None:
        found.delete()
    else:
        services.retire(found)


def _check_unused(model: Model, training: Training | None) -> None:
    if training is not None and not TrainingState(training.state).is_final:
        raise _used_by(training, model)
    membership = model.member_of.first()
    if membership is not None:
        raise InUse(f"Model {model.pk} is used by model {membership.ensemble_id}.")


def _used_by(training: Training, model: Model | Update) -> InUse:
    return InUse(f"Model {model.pk} is used by training {training.pk}.")
