"""Creating a training: everything is checked before anything is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import transaction

from folkmoot.errors import InvalidValue, NotAllowed
from folkmoot.server.accounts.models import User
from folkmoot.server.outbox.events import record
from folkmoot.server.registry import services
from folkmoot.server.registry.models import Kind, Model
from folkmoot.server.trainings.exchange import check_patterns
from folkmoot.server.trainings.models import Participation, Training
from folkmoot.server.trainings.options import Options

MAX_ROUNDS = 10**6


@transaction.atomic
def create_training(
    actor: User, *, model_id: str, clients: Iterable[str], target_num_updates: int, **fields: Any
) -> Training:
    """Make a training of one's own model; a model that another training uses is cloned.

    Raises InvalidValue for a model or a user that is not there, NotAllowed for someone else's model.
    """
    # Locked: of two trainings that want one model at once, the second clones it.
    known = as_uuid(model_id)
    model = Model.objects.select_for_update().filter(pk=known).first() if known else None
    if model is None:
        raise InvalidValue(f"Model {model_id} not found.", code="not_found")
    if model.owner_id != actor.pk:
        raise NotAllowed("You do not have permission to perform this action.")
    if model.type == Kind.MEAN:
        raise InvalidValue(f"Model {model_id} is a MEAN model; what is trained are models with tensors of their own.")
    users = find_users(clients)
    if patterns := Options.of(fields["options"]).exchange:
        check_patterns(model, patterns)
    if Training.objects.filter(model=model).exists():
        model = services.clone(model)
    if fields.get("uncertainty_method") == "SWAG":
        services.begin_moments(model)
    rounds = _num_rounds(target_num_updates, Options.of(fields["options"]))
    training = Training.objects.create(actor=actor, model=model, target_num_updates=rounds, **fields)
    Participation.objects.bulk_create(Participation(training=training, user=user) for user in users)
    record(training.pk, "training_created", _facts(training))
    return training


def _num_rounds(target_num_updates: int, options: Options) -> int:
    """In daisy chaining an update of the global model takes several rounds."""
    rounds = target_num_updates * max(options.daisy_chain_period, 1)
    if rounds > MAX_ROUNDS:
        raise InvalidValue(f"the training would have {rounds:,} rounds; at most {MAX_ROUNDS:,} are taken")
    return rounds


def find_users(ids: Iterable[str]) -> list[User]:
    """The users with these ids, each once; InvalidValue if one is not there."""
    wanted = {as_uuid(each) for each in ids}
    users = list(User.objects.filter(pk__in=[each for each in wanted if each is not None]))
    if len(users) != len(wanted):
        raise InvalidValue("Not all provided users were found!", code="unknown_user")
    return users


def as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _facts(training: Training) -> dict[str, Any]:
    return {
        "actor": str(training.actor_id),
        "model": str(training.model_id),
        "aggregation_method": training.aggregation_method,
        "options": training.options,
    }
