"""Creating a training: everything is checked before anything is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from folkmoot.errors import InvalidValue, NotAllowed
from folkmoot.server.accounts.models import User
from folkmoot.server.outbox.events import record
from folkmoot.server.registry import intake, services
from folkmoot.server.registry.checkpoints import open_blob
from folkmoot.server.registry.models import Kind, Model
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.trainings.cohorts import with_seed
from folkmoot.server.trainings.exchange import check_tensors, schema_of
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
    check_tensors(open_blob(stored.tensors.sha256).schema, stored.tied, plan["aggregation_method"], _options(plan))
    with transaction.atomic():
        model = services.add_model(
            stored, template_sha256=model_file.sha256, owner=actor, name=name, description=description
        )
        return create_for(actor, model, **plan)


def _create_for_own(actor: User, model_id: str, **plan: Any) -> Training:
    wanted = _own(actor, model_id, Model.objects.all())
    check_tensors(schema_of(wanted), wanted.tied, plan["aggregation_method"], _options(plan))
    with transaction.atomic():
        # Locked: of two trainings that want one model at once, the second clones it.
        model = _own(actor, model_id, Model.objects.select_for_update())
        if Training.objects.filter(model=model).exists():
            model = services.clone(model)
        return create_for(actor, model, **plan)


def _own(actor: User, model_id: str, models: QuerySet[Model]) -> Model:
    known = as_uuid(model_id)
    model = models.filter(pk=known).first() if known else None
    if model is None:
        raise InvalidValue(f"Model {model_id} not found.", code="not_found")
    if model.owner_id != actor.pk:
        raise NotAllowed("You do not have permission to perform this action.")
    if model.type == Kind.MEAN:
        raise InvalidValue(f"Model {model_id} is a MEAN model; what is trained are models with tensors of their own.")
    return model


def _options(plan: Mapping[str, Any]) -> Options:
    return Options.of(plan["options"])


def create_for(
    actor: User,
    model: Model,
    *,
    clients: Iterable[str],
    target_num_updates: int,
    options: Mapping[str, Any],
    **fields: Any,
) -> Training:
    """Make a training of a model that no other training has, in the caller's transaction.

    That the options go with the model's tensors was checked before, since that reads a file. Raises InvalidValue.
    """
    users = find_users(clients)
    if fields.get("uncertainty_method") == "SWAG":
        services.begin_moments(model)
    rounds = _num_rounds(target_num_updates, Options.of(options))
    training = Training.objects.create(
        actor=actor, model=model, target_num_updates=rounds, options=with_seed(options), **fields
    )
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
