"""The step after a round in which the moments of the new model come in, and are merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.db import transaction

from folkmoot.protocol.notifications import NotificationType
from folkmoot.protocol.reasons import ReasonCode
from folkmoot.protocol.rounds import ordinal
from folkmoot.protocol.states import RoundState
from folkmoot.server.accounts.models import User
from folkmoot.server.faults import fault_point
from folkmoot.server.notifications.delivery import settle
from folkmoot.server.outbox.events import record
from folkmoot.server.registry.intake import StoredFile
from folkmoot.server.registry.models import Moments
from folkmoot.server.registry.moments import StoredMoments
from folkmoot.server.registry.services import add_moments
from folkmoot.server.trainings import admission
from folkmoot.server.trainings.lifecycle.ending import fail, give_reason
from folkmoot.server.trainings.lifecycle.testing import test_or_close
from folkmoot.server.trainings.models import Aggregation, Round, SwagStatistic, Training
from folkmoot.server.trainings.moves import deadline, locked, locked_if_there, move, move_round
from folkmoot.server.trainings.transitions import RoundEvent, TrainingEvent


@transaction.atomic
def receive_moments(
    training: Training, participant: User, *, round: int, stored: StoredMoments | None, num_examples: int
) -> bool:
    """Count the moments, or that the participant has none, and go on if these were the last awaited ones.

    Returns whether they are new. Raises what `admission.check_may_send_moments` raises.
    """
    training = locked(training.pk)
    digest = stored.received_sha256 if stored else ""
    if admission.check_may_send_moments(training, participant, round=round, received_sha256=digest):
        return False
    current = training.rounds.get(state=RoundState.SWAG)
    _note_moments(current, participant, stored, num_examples)
    settle(training.pk, NotificationType.SWAG_ROUND_START, round, recipient=participant)
    record(training.pk, "moments_received", {"round": round, "participant": str(participant.pk)})
    merge_if_complete(training, current)
    fault_point("swag.before_commit")
    return True


@transaction.atomic
def excuse_from_swag(training_id: UUID, participant: User, *, round: int) -> None:
    """Do not wait for this participant's moments: it counts as missing in this one step."""
    training = locked_if_there(pk=training_id)
    if training is None or training.model.round != round:
        return
    current = training.rounds.filter(state=RoundState.SWAG, cohort=participant).first()
    if current is not None and not current.statistics.filter(participant=participant).exists():
        _note_moments(current, participant, None, 0)
        merge_if_complete(training, current)


@transaction.atomic
def finish_swag(round: Round, moments: StoredFile, *, facts: Mapping[str, Any]) -> bool:
    """Make these the model's moments; returns False, changing nothing, if someone else has done so.

    `facts` are for the manifest. In a pause the round then waits to go on.
    """
    training = locked_if_there(pk=round.training_id)
    current = Round.objects.filter(pk=round.pk, state=RoundState.MERGING).first()
    if training is None or current is None or not training.is_begun or is_merged(training):
        return False
    add_moments(training.model.latest_checkpoint, moments)
    for made in Aggregation.objects.filter(round=current):
        made.facts["moments"] = facts
        made.save(update_fields=["facts"])
    give_reason(training, "")
    if training.is_under_way:
        test_or_close(training, current)
    fault_point("swag_full.before_commit")
    return True


@transaction.atomic
def reject_moments(round: Round, participant_id: UUID, *, reason: str) -> None:
    """Go on as if the participant had sent no moments: these are damaged. With none left the training fails."""
    training = locked_if_there(pk=round.training_id)
    current = Round.objects.filter(pk=round.pk, state=RoundState.MERGING).first()
    if training is None or current is None or not training.is_begun:
        return
    current.statistics.filter(participant=participant_id).update(num_examples=0)
    facts = {"round": training.model.round, "participant": str(participant_id), "reason": reason}
    record(training.pk, "moments_rejected", facts)
    if not current.statistics.with_examples().exists():  # in a pause the next attempt to merge them says so
        sentence = f"The moments of round {ordinal(current.number)} could not be merged: {reason}"
        fail(training.pk, sentence, code=ReasonCode.AGGREGATION_FAILED)


def collect_moments(training: Training, current: Round) -> None:
    move_round(current, RoundEvent.COLLECT)
    current.closes_at = deadline(training)
    current.save()
    move(training, TrainingEvent.COLLECT)
    record(training.pk, "swag_opened", {"round": training.model.round})
    merge_if_complete(training, current)


def _note_moments(current: Round, participant: User, stored: StoredMoments | None, num_examples: int) -> None:
    file = {} if stored is None else {"received_sha256": stored.received_sha256, **asdict(stored.tensors)}
    SwagStatistic.objects.create(round=current, participant=participant, num_examples=num_examples, **file)


def is_merged(training: Training) -> bool:
    """Whether the newest checkpoint has its moments."""
    return Moments.objects.filter(checkpoint=training.model.latest_checkpoint).exists()


def merge_if_complete(training: Training, current: Round) -> None:
    if not training.is_under_way:
        return
    awaited = current.cohort.exclude(pk__in=current.statistics.values("participant"))
    if current.has_enough(current.statistics.with_examples().count()) or not awaited.exists():
        merge(training, current)


def merge(training: Training, current: Round) -> None:
    """Nobody's moments are awaited any more; where none came there is nothing to merge."""
    settle(training.pk, NotificationType.SWAG_ROUND_START, training.model.round)
    move(training, TrainingEvent.GO_ON)
    if not current.statistics.with_examples().exists():
        test_or_close(training, current)
        return
    move_round(current, RoundEvent.FILL)
    current.save()
    record(training.pk, "swag_full", {"round": current.number})
