"""From which models a model descends, and which descend from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q

from folkmoot.server.accounts.models import User
from folkmoot.server.registry.models import Model, ModelQuerySet
from folkmoot.server.trainings.models import Training

Family = Mapping[UUID, Model]


@dataclass(frozen=True)
class Ancestor:
    """The model of which a copy was made after so many rounds; `model` is None unless it may be seen."""

    id: UUID | None
    at_round: int | None
    model: Model | None


@dataclass(frozen=True)
class Lineage:
    """`ancestors` begin with the nearest; of `descendants` there are only those that may be seen, parents first."""

    model: Model
    ancestors: list[Ancestor]
    descendants: list[Model]


def models_of(user: User) -> ModelQuerySet:
    """Those that the user owns, or that are trained where the user takes part."""
    return Model.objects.with_details().filter(Q(owner=user) | Q(training__in=Training.objects.visible_to(user)))


def lineage_of(model: Model, user: User) -> Lineage:
    """The model's line as this user may see it, in as many queries for a long one as for a short one."""
    root = model.root or model.pk
    is_family = Q(pk=root) | Q(root=root)
    family = {each.pk: each for each in Model.objects.filter(is_family).select_related("training")}
    visible = family if user.is_staff else set(models_of(user).filter(is_family).values_list("pk", flat=True))
    seen = {pk: each for pk, each in family.items() if pk in visible}
    descendants = [each for each in _below(model, family) if each.pk in seen]
    return Lineage(family[model.pk], list(_above(model, family, seen)), descendants)


def _above(model: Model, family: Family, seen: Family) -> Iterator[Ancestor]:
    child: Model | None = model
    while child is not None and child.parent_round is not None:
        # A parent that was removed leaves the round behind, and nothing to go on with.
        parent = family.get(child.parent_id) if child.parent_id else None
        yield Ancestor(child.parent_id, child.parent_round, seen.get(parent.pk) if parent else None)
        child = parent


def _below(model: Model, family: Family) -> list[Model]:
    children = defaultdict(list)
    for each in family.values():
        children[each.parent_id].append(each)
    found = [model]
    for each in found:
        found += children[each.pk]
    return found[1:]
