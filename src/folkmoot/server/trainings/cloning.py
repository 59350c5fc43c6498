"""Going on from an earlier round: a new training of a copy of the model, with what its strategy knew then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from folkmoot.aggregation import layout_of
from folkmoot.errors import InvalidValue, Removed
from folkmoot.server.accounts.models import User
from folkmoot.server.outbox.events import record
from folkmoot.server.registry import checkpoints, services
from folkmoot.server.registry.models import Checkpoint, Model
from folkmoot.server.trainings.creation import create_for
from folkmoot.server.trainings.exchange import check_tensors, travelling
from folkmoot.server.trainings.models import Training
from folkmoot.server.trainings.options import Options
from folkmoot.server.trainings.strategies import check_plan, strategy_of


def clone_training(
    training: Training,
    actor: User,
    *,
    round: int | None = None,
    name: str = "",
    target_num_updates: int | None = None,
    options: Mapping[str, Any] | None = None,
    clients: Iterable[str] | None = None,
) -> Training:
    """Make a training that begins with the checkpoint after `round` rounds, by default the latest; it waits for start.

    What is not said is as in `training`; the updates of the model are those that were left. Rounds count on from the
    checkpoint's, so that the same seeds ask the same cohorts. Raises InvalidValue where the checkpoint is gone, nothing
    was left, or the strategy's state does not go with the options.
    """
    options = training.options if options is None else options
    check_plan(training.aggregation_method, options)
    checkpoint = _checkpoint(training, round, Model.objects.all())
    _check_files(training, checkpoint, options)
    with transaction.atomic():
        # Once more, and locked as by whoever removes it; what is in its files does not change.
        checkpoint = _checkpoint(training, checkpoint.round, Model.objects.select_for_update())
        made = create_for(
            actor,
            _copied(checkpoint, owner=actor, name=name),
            clients=_participants(training) if clients is None else clients,
            target_num_updates=target_num_updates or _updates_left(training, checkpoint.round),
            options=options,
            aggregation_method=training.aggregation_method,
            uncertainty_method=training.uncertainty_method,
            metric_names=training.metric_names,
        )
        facts = {"by": str(actor.pk), "training": str(made.pk), "round": checkpoint.round}
        record(training.pk, "training_cloned", facts)
    return made


def _checkpoint(training: Training, round: int | None, models: QuerySet[Model]) -> Checkpoint:
    model = models.filter(pk=training.model_id).first()
    if model is None:
        raise InvalidValue(f"the model of training {training.pk} was removed")
    number = model.round if round is None else round
    checkpoint = model.checkpoints.filter(round=number).first()
    if checkpoint is None:
        raise InvalidValue(f"round: model {model.pk} has no checkpoint {number}; the latest is {model.round}")
    if checkpoint.removed_at is not None:
        raise InvalidValue(f"round: checkpoint {number} of model {model.pk} was removed", code=Removed.code)
    return checkpoint


def _copied(checkpoint: Checkpoint, *, owner: User, name: str) -> Model:
    keeps_state = bool(checkpoint.state_sha256)
    return services.clone(checkpoint.model, checkpoint=checkpoint, keeps_state=keeps_state, owner=owner, name=name)


def _participants(training: Training) -> list[str]:
    return [str(each) for each in training.participants.values_list("pk", flat=True)]


def _updates_left(training: Training, round: int) -> int:
    left = training.first_round + training.target_num_updates - round
    if left < 1:
        raise InvalidValue(f"target_num_updates: training {training.pk} had no rounds left after {round}; say how many")
    return ceil(left / max(training.settings.daisy_chain_period, 1))


def _check_files(training: Training, checkpoint: Checkpoint, options: Mapping[str, Any]) -> None:
    """Raise InvalidValue where the options do not go with the model's tensors, or with what the strategy has kept."""
    model = checkpoints.schema_of(checkpoint)
    check_tensors(model, checkpoint.model.tied, training.aggregation_method, Options.of(options))
    if not checkpoint.state_sha256:
        return
    planned = Training(aggregation_method=training.aggregation_method, options=options)
    expected = layout_of(strategy_of(planned), travelling(planned, model)).state
    if checkpoints.open_blob(checkpoint.state_sha256).schema != expected:
        sentence = f"what {training.aggregation_method} kept does not go with these options; leave exchange and"
        raise InvalidValue(f"options: {sentence} aggregation as they were")
