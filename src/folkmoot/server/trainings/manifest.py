"""A training's manifest: all that its models were made of, by digests, whether the files are kept or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Prefetch

from folkmoot.errors import InvalidValue
from folkmoot.server.accounts.models import User
from folkmoot.server.registry.models import Model
from folkmoot.server.trainings.models import Aggregation, Round, Training
from folkmoot.server.trainings.provenance import versions

FORMAT = 1
"""Counted up when a reader of older manifests would misread a newer one."""


def manifest_of(training: Training) -> dict[str, Any]:
    """For JSON; rounds come in their order, and in each the updates in the order in which they were summed."""
    cohort = Prefetch("cohort", User.objects.only("pk").order_by("pk"))
    rounds = training.rounds.select_related("aggregation").prefetch_related(cohort).order_by("number")
    return {
        "format": FORMAT,
        "training": str(training.pk),
        "actor": str(training.actor_id),
        "state": training.state,
        "target_num_updates": training.target_num_updates,
        "aggregation_method": training.aggregation_method,
        "uncertainty_method": training.uncertainty_method,
        "options": training.options,
        "seeds": _seeds(training),
        "versions": _versions_now(training),
        "model": _model(training.model),
        "rounds": [_round(each) for each in rounds],
    }


def _model(model: Model) -> dict[str, Any]:
    """`start` is what the training began with."""
    start = model.checkpoints.order_by("round").first()
    return {
        "id": str(model.pk),
        "format": model.format,
        "template": model.template_sha256,
        "parent": model.parent_id and str(model.parent_id),
        "parent_round": model.parent_round,
        "start": start and {"round": start.round, "sha256": start.sha256, "origin": start.origin},
    }


def _round(current: Round) -> dict[str, Any]:
    """What was written down as the model was made; of a round that made none there is its cohort alone."""
    made: Aggregation | None = getattr(current, "aggregation", None)
    return {
        "number": current.number,
        "state": current.state,
        "attempt": current.attempt,
        "opened_at": current.opened_at.isoformat(),
        "aggregated_at": current.aggregated_at and current.aggregated_at.isoformat(),
        "cohort": [str(user.pk) for user in current.cohort.all()],
        **(made.facts if made else {}),
    }


def _seeds(training: Training) -> dict[str, Any]:
    """By which cohorts are drawn and local models dealt; nothing else in a training is random to the hub."""
    dealing = {"daisy_chain": f"{training.pk} <round>"} if training.settings.daisy_chain_period else {}
    selection = training.settings.selection
    return {**({"selection": selection["seed"]} if selection else {}), **dealing}


def _versions_now(training: Training) -> Mapping[str, str]:
    """Of this server; each round says what it was made with."""
    try:
        return versions(training.aggregation_method)
    except InvalidValue:  # a plug-in that is no longer there
        return {}
