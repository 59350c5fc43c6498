"""Every change of a training's state: each command locks the training, looks the event up, writes state and event.

What follows from an event is done by its handler (handlers.py), outside the transaction, possibly twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from folkmoot.aggregation import Scores
from folkmoot.errors import WrongState
from folkmoot.protocol.notifications import NotificationType
from folkmoot.protocol.states import RoundState, TrainingState, UpdateStatus
from folkmoot.server.accounts.models import User
from folkmoot.server.faults import fault_point
from folkmoot.server.notifications.delivery import settle, settle_training
from folkmoot.server.outbox.events import record
from folkmoot.server.registry.intake import StoredFile, StoredUpdate
from folkmoot.server.registry.models import Metric, Model, Phase
from folkmoot.server.registry.moments import StoredMoments
from folkmoot.server.registry.services import Metrics, add_checkpoint, add_moments, note_metrics
from folkmoot.server.trainings import admission, buffering, daisy_chain
from folkmoot.server.trainings.models import Participation, Round, SwagStatistic, Training, Update
from folkmoot.server.trainings.moves import deadline, locked, locked_if_there, move, move_round
from folkmoot.server.trainings.strategies import buffer_of, needed_updates, tested
from folkmoot.server.trainings.transitions import RoundEvent, TrainingEvent
from folkmoot.tensors.tensor_file import WrittenFile

UPDATE_ROUND_START = NotificationType.UPDATE_ROUND_START
MODEL_TEST_ROUND = NotificationType.MODEL_TEST_ROUND
SWAG_ROUND_START = NotificationType.SWAG_ROUND_START


@transaction.atomic
def start(training: Training) -> None:
    """Open the first round. WrongState unless the training is new and has enough participants."""
    training = locked(training.pk)
    if training.state != TrainingState.INITIAL:
        raise WrongState(f"Training {training.pk} is not in state INITIAL!")
    registered, needed = training.participants.count(), needed_updates(training)
    if not registered:
        raise WrongState("At least one participant must be registered!", code="no_participants")
    if registered < needed:
        sentence = f"{training.aggregation_method} needs {needed} participants, and {registered} take part!"
        raise WrongState(sentence, code="too_few_participants")
    move(training, TrainingEvent.START)
    record(training.pk, "training_started")
    _open_round(training, number=training.model.round)


@transaction.atomic
def add_participants(training: Training, users: Iterable[User]) -> None:
    """Let the users take part, from the next round on; those who do already are left alone."""
    training = locked(training.pk)
    if TrainingState(training.state).is_final:
        raise WrongState(f"Training with ID {training.pk} is in state {training.state}")
    seats = [Participation(training=training, user=user) for user in users]
    Participation.objects.bulk_create(seats, ignore_conflicts=True)
    record(training.pk, "participants_added", {"users": [str(seat.user_id) for seat in seats]})


@transaction.atomic
def remove_participants(training: Training, users: Iterable[User], *, reason: str = "") -> None:
    """End the users' part in the training; what they sent already counts. Whoever takes no part is left alone."""
    training = locked(training.pk)
    leaving = Participation.objects.filter(training=training, user__in=users)
    removed = list(leaving.values_list("user_id", flat=True))
    leaving.delete()
    if not removed:
        return
    for user in User.objects.filter(pk__in=removed):
        settle_training(training.pk, recipient=user)
    record(training.pk, "participants_removed", {"users": [str(user) for user in removed], "reason": reason})
    if training.is_under_way:
        _go_on_without(training, removed)


@transaction.atomic
def receive_update(
    training: Training,
    participant: User,
    *,
    round: int,
    stored: StoredUpdate,
    num_examples: int,
    metrics: Metrics,
) -> tuple[Update, bool]:
    """Count the update in the open round, and close that if this was the last awaited one.

    Returns the update and whether it is new: the same bytes again are the same update. Raises what
    `admission.check_may_submit` raises.
    """
    training = locked(training.pk)
    earlier = admission.check_may_submit(training, participant, round=round, received_sha256=stored.received_sha256)
    if earlier is not None:
        return earlier, False
    current = training.rounds.get(number=round)
    update = Update.objects.create(
        round=current,
        participant=participant,
        format=stored.format,
        received_sha256=stored.received_sha256,
        received_bytes=stored.received_bytes,
        sha256=stored.tensors.sha256,
        num_bytes=stored.tensors.num_bytes,
        checksums=stored.tensors.checksums,
        num_examples=num_examples,
    )
    note_metrics(training.model, metrics, reporter=participant, step=round, phase=Phase.TRAIN)
    settle(training.pk, UPDATE_ROUND_START, round, recipient=participant)
    record(training.pk, "update_received", {"round": round, "participant": str(participant.pk)})
    for open_round in training.rounds.filter(state=RoundState.OPEN):
        _fill_if_complete(training, open_round)
    fault_point("upload.before_commit")
    return update, True


@transaction.atomic
def receive_metrics(model: Model, reporter: User, metrics: Metrics) -> None:
    """Note the metrics; in a test round they are the reporter's answer, and the last answer closes the round."""
    training = locked_if_there(model=model)
    testing = _testing_round(training, cohort=reporter)
    if training is None or testing is None:
        model.refresh_from_db(fields=["round"])
        note_metrics(model, metrics, reporter=reporter, step=model.round)
        return
    # The last answer counts: one that is sent again takes the place of the first.
    _test_answers(training).filter(reporter=reporter).delete()
    note_metrics(training.model, metrics, reporter=reporter, step=training.model.round, phase=Phase.TEST)
    settle(training.pk, MODEL_TEST_ROUND, training.model.round, recipient=reporter)
    _close_if_tested(training, testing)


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
    settle(training.pk, SWAG_ROUND_START, round, recipient=participant)
    record(training.pk, "moments_received", {"round": round, "participant": str(participant.pk)})
    _merge_if_complete(training, current)
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
        _merge_if_complete(training, current)


@transaction.atomic
def go_on_if_complete(training_id: UUID, *, round: int) -> None:
    """See whether those whose updates can still be expected in this round have all answered."""
    training = locked_if_there(pk=training_id)
    if training is None or not training.is_under_way:
        return
    for current in training.rounds.filter(number=round):
        _fill_if_complete(training, current)


@transaction.atomic
def finish_swag(round: Round, moments: StoredFile) -> bool:
    """Make these the model's moments; returns False, changing nothing, if someone else has done so."""
    training = locked_if_there(pk=round.training_id)
    current = Round.objects.filter(pk=round.pk, state=RoundState.MERGING).first()
    if training is None or current is None or training.state != TrainingState.ONGOING:
        return False
    add_moments(training.model.latest_checkpoint, moments)
    _give_reason(training, "")
    _test_or_close(training, current)
    fault_point("swag_full.before_commit")
    return True


@transaction.atomic
def excuse_from_test(training_id: UUID, user_id: UUID, *, round: int) -> None:
    """Do not wait for this participant's metrics: it counts as missing in this one test."""
    training = locked_if_there(pk=training_id)
    testing = _testing_round(training)
    if training is not None and testing is not None and training.model.round == round:
        _dismiss(testing, [user_id])
        _close_if_tested(training, testing)


@transaction.atomic
def reject_update(update: Update, *, reason: str) -> None:
    """Leave a damaged update out of its round, which is being aggregated; where too few are left, ask again."""
    training = locked_if_there(pk=update.round.training_id)
    standing = Update.objects.standing().filter(pk=update.pk)
    current = Round.objects.filter(counted__in=standing, state=RoundState.AGGREGATING).first()
    if training is None or current is None or training.state != TrainingState.ONGOING:
        return
    current.counted.filter(pk=update.pk).update(status=UpdateStatus.REJECTED, reason=reason)
    facts = {"round": current.number, "participant": str(update.participant_id), "reason": reason}
    record(training.pk, "update_rejected", facts)
    left = current.counted.standing().count()
    if left >= _least(training):
        return
    if current.attempt <= training.settings.round_retries:
        _retry(training, current)
    else:
        fail(training.pk, f"Round {current.number} has {left} updates left: {reason}.")


@transaction.atomic
def note_wait(training_id: UUID, *, round: int, reason: str) -> None:
    """Say what the round that is being aggregated waits for."""
    training = locked_if_there(pk=training_id)
    waiting = [state for state in RoundState if state.is_aggregating]
    if training is None or not training.is_under_way or training.reason == reason:
        return
    if training.rounds.filter(number=round, state__in=waiting).exists():
        _give_reason(training, reason)
        record(training.pk, "round_waits", {"round": round, "reason": reason})


@transaction.atomic
def finish_aggregation(
    round: Round,
    tensors: StoredFile,
    *,
    beneath: Sequence[str] = (),
    state: WrittenFile | None = None,
    scores: Mapping[UUID, Scores],
) -> bool:
    """Make these tensors, over those of the files `beneath`, the model, and `state` what its strategy goes on with.

    `scores` say of the updates, by their ids, what has become of them. Returns False, changing nothing, if someone
    else has done so, or if these are no longer the updates that stand in the round.
    """
    training = locked_if_there(pk=round.training_id)
    current = Round.objects.filter(pk=round.pk, state=RoundState.AGGREGATING).first()
    if training is None or current is None or training.state != TrainingState.ONGOING:
        return False
    if set(current.counted.standing().values_list("pk", flat=True)) != set(scores):
        return False
    model = training.model
    model.round = current.number + 1
    model.save(update_fields=["round"])
    add_checkpoint(model, model.round, tensors, beneath=beneath, state=state)
    _note_scores(current, scores)
    _give_reason(training, "")
    current.aggregated_at = timezone.now()
    if training.uncertainty_method == "SWAG":
        _collect_moments(training, current)
    else:
        _test_or_close(training, current)
    fault_point("round_full.before_commit")
    return True


@transaction.atomic
def fail(training_id: UUID, reason: str) -> None:
    """The training cannot go on, for a reason that one sentence tells; nothing happens unless it is under way."""
    training = locked_if_there(pk=training_id)
    if training is None or not training.is_under_way:
        return
    for current in training.rounds.exclude(state__in=(RoundState.CLOSED, RoundState.FAILED)):
        move_round(current, RoundEvent.FAIL)
        current.save()
    training.reason = reason
    move(training, TrainingEvent.FAIL)
    settle_training(training.pk)
    record(training.pk, "training_failed", {"reason": reason})


@transaction.atomic
def delete(training: Training) -> None:
    """Stop the training if it runs, and remove it; its model stays, with its checkpoints and metrics."""
    training = locked(training.pk)
    settle_training(training.pk)
    record(training.pk, "training_deleted", {"state": training.state})
    training.delete()
    if training.model.removed_at is not None:
        training.model.delete()


@transaction.atomic
def close_if_overdue(round: Round, now: datetime) -> None:
    """At the deadline: go on with those who answered if they suffice, else ask again, else give up."""
    training = locked_if_there(pk=round.training_id)
    current = Round.objects.overdue(now).filter(pk=round.pk).first()
    if training is None or current is None:
        return
    if current.state == RoundState.TESTING:
        _close(training, current)
        return
    if current.state == RoundState.SWAG:
        _merge(training, current)
        return
    arrived = buffering.arrived(training, current).count()
    if training.settings.min_updates is not None and arrived >= _least(training):
        _fill(training, current)
    elif current.attempt <= training.settings.round_retries:
        _retry(training, current)
    else:
        missing = ", ".join(current.missing().values_list("username", flat=True))
        fail(training.pk, f"Round {current.number} got {arrived} updates in time; missing: {missing}.")


def _open_round(training: Training, *, number: int) -> None:
    cohort = list(training.participants.all())
    if not cohort:
        fail(training.pk, f"No participants are left for round {number}.")
        return
    if len(cohort) < needed_updates(training):
        fail(training.pk, _too_few(training, f"round {number} has {len(cohort)} participants"))
        return
    opened = Round.objects.create(training=training, number=number, closes_at=deadline(training))
    opened.cohort.set(cohort)
    daisy_chain.hand_over(training, opened, [participant.pk for participant in cohort])
    record(training.pk, "round_opened", {"round": number})
    if buffer_of(training):
        _fill_if_complete(training, opened)


def _fill_if_complete(training: Training, current: Round) -> None:
    """Go on once nobody is awaited any more; some may be missing, but fewer than suffice at the deadline never do."""
    if current.state != RoundState.OPEN:
        return
    arrived = buffering.arrived(training, current).count()
    buffer = buffer_of(training)
    if buffer and arrived >= buffer.size:
        _fill(training, current)
        return
    if current.awaited().exists():
        return
    is_missing = current.missing().exists()
    if arrived < needed_updates(training):
        # With nobody left to send another, waiting for the deadline would change nothing.
        if not is_missing:
            fail(training.pk, _too_few(training, f"round {current.number} has {arrived}"))
    elif not is_missing or arrived >= _least(training):
        _fill(training, current)


def _least(training: Training) -> int:
    """How many updates suffice where others are missing."""
    return max(training.settings.min_updates or 1, needed_updates(training))


def _too_few(training: Training, found: str) -> str:
    return f"{training.aggregation_method} needs {needed_updates(training)} updates, and {found}."


def _fill(training: Training, current: Round) -> None:
    settle(training.pk, UPDATE_ROUND_START, current.number)
    if daisy_chain.passes_on(training, current):
        _pass_on(training, current)
        return
    _take(training, current)
    move_round(current, RoundEvent.FILL)
    current.save()
    record(training.pk, "round_full", {"round": current.number})


def _take(training: Training, current: Round) -> None:
    """These updates count in this round, and no other; of a buffer as many as it is to hold."""
    buffer = buffer_of(training)
    taken = buffering.arrived(training, current).values_list("pk", flat=True)
    Update.objects.filter(pk__in=list(taken[: buffer.size] if buffer else taken)).update(counted_in=current)


def _pass_on(training: Training, current: Round) -> None:
    move_round(current, RoundEvent.RELAY)
    current.save()
    current.updates.standing().update(status=UpdateStatus.PASSED_ON)
    record(training.pk, "round_closed", {"round": current.number, "passed_on": True})
    _open_round(training, number=current.number + 1)


def _retry(training: Training, current: Round) -> None:
    move_round(current, RoundEvent.RETRY)
    current.attempt += 1
    current.closes_at = deadline(training)
    current.save()
    current.counted.standing().update(counted_in=None)
    _give_reason(training, "")
    record(training.pk, "round_opened", {"round": current.number})
    if buffer_of(training):
        _fill_if_complete(training, current)


def _give_reason(training: Training, reason: str) -> None:
    training.reason = reason
    training.save(update_fields=["reason"])


def _note_scores(current: Round, scores: Mapping[UUID, Scores]) -> None:
    updates = list(current.counted.standing().defer("checksums"))
    for update in updates:
        for name, value in asdict(scores[update.pk]).items():
            setattr(update, name, value)
        if update.weight == 0:
            update.status, update.reason = UpdateStatus.NOT_CHOSEN, "the strategy chose others"
    Update.objects.bulk_update(updates, [field.name for field in fields(Scores)], batch_size=100)


def _collect_moments(training: Training, current: Round) -> None:
    move_round(current, RoundEvent.COLLECT)
    current.closes_at = deadline(training)
    current.save()
    move(training, TrainingEvent.COLLECT)
    record(training.pk, "swag_opened", {"round": training.model.round})
    _merge_if_complete(training, current)


def _note_moments(current: Round, participant: User, stored: StoredMoments | None, num_examples: int) -> None:
    file = {} if stored is None else {"received_sha256": stored.received_sha256, **asdict(stored.tensors)}
    SwagStatistic.objects.create(round=current, participant=participant, num_examples=num_examples, **file)


@transaction.atomic
def reject_moments(round: Round, participant_id: UUID, *, reason: str) -> None:
    """Go on as if the participant had sent no moments: these are damaged. With none left the training fails."""
    training = locked_if_there(pk=round.training_id)
    current = Round.objects.filter(pk=round.pk, state=RoundState.MERGING).first()
    if training is None or current is None or training.state != TrainingState.ONGOING:
        return
    current.statistics.filter(participant=participant_id).update(num_examples=0)
    facts = {"round": training.model.round, "participant": str(participant_id), "reason": reason}
    record(training.pk, "moments_rejected", facts)
    if not current.statistics.with_examples().exists():
        fail(training.pk, f"The moments of round {current.number} could not be merged: {reason}")


def _merge_if_complete(training: Training, current: Round) -> None:
    if not current.cohort.exclude(pk__in=current.statistics.values("participant")).exists():
        _merge(training, current)


def _merge(training: Training, current: Round) -> None:
    """Nobody's moments are awaited any more; where none came there is nothing to merge."""
    settle(training.pk, SWAG_ROUND_START, training.model.round)
    move(training, TrainingEvent.GO_ON)
    if not current.statistics.with_examples().exists():
        _test_or_close(training, current)
        return
    move_round(current, RoundEvent.FILL)
    current.save()
    record(training.pk, "swag_full", {"round": current.number})


def _test_or_close(training: Training, current: Round) -> None:
    if not _is_tested(training, current):
        _close(training, current)
        return
    move_round(current, RoundEvent.TEST)
    current.closes_at = deadline(training)
    current.save()
    record(training.pk, "test_opened", {"round": training.model.round})
    _close_if_tested(training, current)


def _is_tested(training: Training, current: Round) -> bool:
    tests = tested(training)
    return tests == "every_round" or (tests == "final" and _is_last(training, current))


def _is_last(training: Training, current: Round) -> bool:
    first = training.rounds.order_by("number").values_list("number", flat=True)[0]
    return current.number + 1 - first >= training.target_num_updates


def _testing_round(training: Training | None, **narrowed: Any) -> Round | None:
    if training is None or training.state != TrainingState.ONGOING:
        return None
    return training.rounds.filter(state=RoundState.TESTING, **narrowed).first()


def _test_answers(training: Training) -> QuerySet[Metric]:
    return training.model.metrics.filter(step=training.model.round, phase=Phase.TEST)


def _close_if_tested(training: Training, current: Round) -> None:
    if not current.cohort.exclude(pk__in=_test_answers(training).values("reporter")).exists():
        _close(training, current)


def _close(training: Training, current: Round) -> None:
    move_round(current, RoundEvent.CLOSE)
    current.save()
    settle(training.pk, MODEL_TEST_ROUND, training.model.round)
    record(training.pk, "round_closed", {"round": current.number})
    if _is_last(training, current):
        buffering.waiting(training).update(status=UpdateStatus.LATE, reason="the training had all it needed")
        move(training, TrainingEvent.FINISH)
        record(training.pk, "training_finished")
    else:
        _open_round(training, number=current.number + 1)


def _dismiss(current: Round, users: Iterable[UUID]) -> None:
    current.cohort.remove(*User.objects.filter(pk__in=users))


def _go_on_without(training: Training, removed: Iterable[UUID]) -> None:
    """Nobody waits for who has left: the round may be full now, or tested, or have nothing to go on with."""
    current = training.rounds.exclude(state__in=(RoundState.CLOSED, RoundState.FAILED)).get()
    _dismiss(current, removed)
    if current.state == RoundState.TESTING:
        _close_if_tested(training, current)
    elif current.state == RoundState.SWAG:
        _merge_if_complete(training, current)
    elif current.state == RoundState.OPEN and buffering.arrived(training, current).exists():
        _fill_if_complete(training, current)
    elif current.state == RoundState.OPEN and not current.cohort.exists():
        fail(training.pk, f"No participants are left for round {current.number}.")
