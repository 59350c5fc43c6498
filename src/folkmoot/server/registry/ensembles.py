"""Models that are the mean of others: they have members, and no tensors of their own."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction

from folkmoot.errors import InvalidValue, NotAllowed
from folkmoot.server.accounts.models import User
from folkmoot.server.registry.models import Kind, Membership, Model


@transaction.atomic
def create_ensemble(
    owner: User,
    members: Sequence[UUID],
    *,
    name: str,
    description: str,
    round: int = 0,
    input_shape: Sequence[int | None] | None = None,
) -> Model:
    """Make a MEAN model of one's own models; each counts once.

    Raises InvalidValue for a model that is not there or is an ensemble itself, NotAllowed for someone else's.
    """
    wanted = list(dict.fromkeys(members))
    # Locked, so that none is removed before it is a member; in one order, so that two requests cannot block each other.
    found = {model.pk: model for model in Model.objects.select_for_update().filter(pk__in=wanted).order_by("pk")}
    models = [_checked(owner, pk, found.get(pk)) for pk in wanted]
    ensemble = Model.objects.create(
        owner=owner,
        type=Kind.MEAN,
        name=name,
        description=description,
        round=round,
        input_shape=input_shape or models[0].input_shape,
    )
    Membership.objects.bulk_create(Membership(ensemble=ensemble, member=model) for model in models)
    return ensemble


def _checked(owner: User, pk: UUID, model: Model | None) -> Model:
    if model is None:
        raise InvalidValue(f"Model {pk} not found.", code="not_found")
    if model.owner_id != owner.pk:
        raise NotAllowed("You do not have permission to perform this action.")
    if model.type == Kind.MEAN:
        raise InvalidValue(f"Model {pk} is a MEAN model itself; name its members instead.")
    return model
