"""Creating a training: everything is checked before anything is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from django.db import transaction

from folkmoot.errors import InvalidValue, NotAllowed
from folkmoot.server.accounts.models import User
from folkmoot.server.outbox.events import record
from folkmoot.server.registry import intake, services
from folkmoot.server.registry.models import Kind, Model
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.trainings.exchange import check_model
from folkmoot.server.trainings.models import Participation, Training
from folkmoot.server.trainings.options import Options

MAX_ROUNDS = 10**6


def create_training(
    actor: User,
    *,
    model_id: str = "",
    model_file: IncomingFile | None = None,
    name: str = "",
    description: str = "",
    **plan: Any,
) -> Training:
    """Make a training of one's own model, a copy of it where another training has that; or of a file that comes along.

    Raises InvalidValue for a model or a user that is not there, NotAllowed for someone else's model, and InvalidFile.
    """
    if model_file is None:
        return _create_for_own(actor, model_id, **plan)
    stored = intake.store_model(model_file)
    with transaction.atomic():
        model = services.add_model(
            stored, template_sha256=model_file.sha256, owner=actor, name=name, description=description
        )
        return _create(actor, model, **plan)


@transaction.atomic
def _create_for_own(actor: User, model_id: str, **plan: Any) -> Training:
    # Locked: of two trainings that want one model at once, the second clones it.
    known = as_uuid(model_id)
    model = Model.objects.select_for_update().filter(pk=known).first() if known else None
    if model is None:
        raise InvalidValue(f"Model {model_id} not found.", code="not_found")
    if model.owner_id != actor.pk:
        raise NotAllowed("You do not have permission to perform this action.")
    if model.type == Kind.MEAN:
        raise InvalidValue(f"Model {model_id} is a MEAN model; what is trained are models with tensors of their own.")
    if Training.objects.filter(model=model).exists():
        model = services.clone(model)
    return _create(actor, model, **plan)


def _create(
    actor: User,
    model: Model,
    *,
    clients: Iterable[str],
    target_num_updates: int,
    options: Mapping[str, Any],
    **fields: Any,
) -> Training:
    users = find_users(clients)
    settings = Options.of(options)
    check_model(model, fields["aggregation_method"], settings)
    if fields.get("uncertainty_method") == "SWAG":
        services.begin_moments(model)
    rounds = _num_rounds(target_num_updates, settings)
    training = Training.objects.create(actor=actor, model=model, target_num_updates=rounds, options=options, **fields)
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
