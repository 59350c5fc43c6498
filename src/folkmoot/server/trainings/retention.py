"""Which files of a training are kept. What is not is marked: rows stay, and the storage's sweep removes the files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Max, Q, QuerySet

from folkmoot.errors import NotFound
from folkmoot.protocol.states import RoundState, TrainingState, UpdateStatus
from folkmoot.server.registry.models import Checkpoint, Moments
from folkmoot.server.trainings.goals import best_checkpoint
from folkmoot.server.trainings.models import Handover, Round, SwagStatistic, Training, Update
from folkmoot.server.trainings.moves import locked_if_there
from folkmoot.server.trainings.strategies import buffer_of

ALL, NONE, LAST_ROUND = "all", "none", "last_round"


@transaction.atomic
def mark_removed(training_id: UUID, now: datetime) -> None:
    """Mark those files of the training that its `retention` does not keep, and that nothing of it needs any more."""
    training = locked_if_there(pk=training_id)
    if training is None:
        return
    over = _over(training)
    unwanted = _unwanted_rounds(training, over)
    _unwanted_updates(training, over, unwanted).update(removed_at=now)
    SwagStatistic.objects.filter(round__in=unwanted, removed_at=None).update(removed_at=now)
    _unwanted_checkpoints(training).update(removed_at=now)


def _over(training: Training) -> QuerySet[Round]:
    """The rounds that need no file any more: one that has failed may be tried again until its training is stopped."""
    states = [RoundState.CLOSED]
    if training.state == TrainingState.STOPPED:
        states.append(RoundState.FAILED)
    return training.rounds.filter(state__in=states)


def _unwanted_rounds(training: Training, over: QuerySet[Round]) -> QuerySet[Round]:
    """Those whose updates and moments are not kept: all but the last that a model was made of."""
    wanted = training.settings.retention.get("updates", LAST_ROUND)
    if wanted == ALL:
        return over.none()
    useful = over.exclude(state=RoundState.FAILED, aggregated_at=None).order_by("-number")
    number_kept = {NONE: 0, LAST_ROUND: 1}.get(wanted, wanted)
    return over.exclude(pk__in=list(useful.values_list("pk", flat=True)[:number_kept]))


def _unwanted_updates(training: Training, over: QuerySet[Round], unwanted: QuerySet[Round]) -> QuerySet[Update]:
    counted, not_counted = Q(counted_in__in=unwanted), Q(counted_in=None, round__in=unwanted)
    # Another participant may still be asked to begin with it.
    handed_over = Handover.objects.filter(round__training=training).exclude(round__in=over)
    found = Update.objects.kept().filter(counted | not_counted & ~Q(status=UpdateStatus.WAITING))
    return found.filter(round__training=training).exclude(pk__in=handed_over.values("update"))


def _unwanted_checkpoints(training: Training) -> QuerySet[Checkpoint]:
    wanted = training.settings.retention.get("checkpoints", ALL)
    kept = training.model.checkpoints.kept()
    if wanted == ALL:
        return kept.none()
    numbers = list(kept.order_by("-round").values_list("round", flat=True))
    return kept.filter(round__in=set(numbers) - set(numbers[:wanted]) - _needed_checkpoints(training, numbers))


def _needed_checkpoints(training: Training, numbers: Sequence[int]) -> set[int]:
    """Whatever is asked for: the first one, which tells what the model is, the latest and the best.

    With SWAG, too, the one that has the newest moments; in asynchronous training those that a late update may have
    begun with.
    """
    model = training.model
    needed = {*numbers[-1:], model.round}
    with suppress(NotFound):
        needed.add(best_checkpoint(model))
    newest = Moments.objects.filter(checkpoint__model=model).aggregate(newest=Max("checkpoint__round"))["newest"]
    buffer, rounds = buffer_of(training), training.rounds.aggregate(newest=Max("number"))["newest"]
    if buffer and rounds is not None and not TrainingState(training.state).is_final:
        needed.update(number for number in numbers if number >= rounds - buffer.max_staleness)
    return needed | ({newest} - {None})
