"""Asynchronous training: an update counts in the next round that is aggregated, whichever it began with.

A participant sends one update for each round that it is asked in, but takes its time; what is too stale is refused.
Source: Nguyen et al. 2022, https://arxiv.org/abs/2106.06639
"""

from __future__ import annotations

from folkmoot.aggregation import Buffer
from folkmoot.protocol.states import RoundState
from folkmoot.server.accounts.models import User
from folkmoot.server.trainings.models import Round, Training, Update, UpdateQuerySet
from folkmoot.server.trainings.strategies import buffer_of


def arrived(training: Training, current: Round) -> UpdateQuerySet:
    """The updates that would count if the round were closed now, in the order in which they came."""
    if buffer_of(training) is None:
        return current.updates.standing()
    return waiting(training)


def waiting(training: Training) -> UpdateQuerySet:
    """The updates that no round has taken yet, in the order in which they came."""
    found = Update.objects.waiting().filter(round__training=training)
    return found.order_by("received_at", "pk")


def may_still_come(training: Training, participant: User, begun_with: Round, buffer: Buffer) -> bool:
    """Whether an update may come in of who was asked for one in that round, and began with its model."""
    takes_part = training.is_begun and training.has_participant(participant)
    return takes_part and staleness(training, begun_with.number, buffer) <= buffer.max_staleness


def staleness(training: Training, number: int, buffer: Buffer) -> int:
    """How many rounds late an update that began with that round's model would count if it came now."""
    newest = training.rounds.latest("number")
    following = newest.number if newest.state in (RoundState.WAITING, RoundState.OPEN) else newest.number + 1
    # Rounds take those that wait in their order: it goes behind all of them.
    return following + waiting(training).count() // buffer.size - number
