"""Daisy chaining: local models wander from participant to participant for some rounds before they are aggregated.

Source: Kamp et al. 2023, Algorithm 1, https://arxiv.org/abs/2110.03469
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import chain, cycle
from uuid import UUID

from folkmoot.server.trainings.models import Handover, Round, Training, Update


def passes_on(training: Training, current: Round) -> bool:
    """Whether the round's local models wander on, in place of being aggregated."""
    return current.number + 1 - training.model.round < training.settings.daisy_chain_period


def hand_over(training: Training, opened: Round, cohort: Iterable[UUID]) -> None:
    """Note with whose local model each of the cohort begins; nothing where all begin with the global one."""
    if opened.number == training.model.round:
        return
    wandering = Update.objects.standing().filter(round__training=training, round__number=opened.number - 1)
    models = {update.participant_id: update for update in wandering.defer("checksums")}
    dealt = deal(models, cohort, seed=f"{training.pk} {opened.number}")
    Handover.objects.bulk_create(
        Handover(round=opened, participant_id=participant, update=models[owner]) for participant, owner in dealt.items()
    )


def deal(owners: Iterable[UUID], participants: Iterable[UUID], *, seed: str) -> dict[UUID, UUID]:
    """Say for each participant whose model it gets: never its own, unless that is the only one.

    Who owns none gets one that nobody else has, while there is such a one. The same arguments, in any order, give
    the same answer.
    """
    ring = _shuffled(owners, seed)
    following = dict(zip(ring, [*ring[1:], *ring[:1]], strict=True))
    participants = list(participants)
    dealt = {each: following[each] for each in participants if each in following}
    taken = set(dealt.values())
    left = [owner for owner in ring if owner not in taken]
    others = _shuffled((each for each in participants if each not in following), seed)
    return dealt | dict(zip(others, chain(left, cycle(ring)), strict=False))


def _shuffled(ids: Iterable[UUID], seed: str) -> list[UUID]:
    return sorted(ids, key=lambda each: hashlib.sha256(f"{seed} {each}".encode()).digest())
