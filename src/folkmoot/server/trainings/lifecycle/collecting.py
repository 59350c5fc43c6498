"""An open round: asking a cohort for updates, taking them in, until there are enough."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from folkmoot.protocol.notifications import NotificationType
from folkmoot.protocol.reasons import ReasonCode
from folkmoot.protocol.rounds import ordinal
from folkmoot.protocol.states import Doing, RoundState, UpdateStatus
from folkmoot.server import clock
from folkmoot.server.accounts.models import User
from folkmoot.server.faults import fault_point
from folkmoot.server.notifications.delivery import settle
from folkmoot.server.outbox.events import record
from folkmoot.server.registry.intake import StoredUpdate
from folkmoot.server.registry.models import Phase
from folkmoot.server.registry.services import Metrics, note_metrics
from folkmoot.server.trainings import admission, availability, buffering, cohorts, daisy_chain
from folkmoot.server.trainings.lifecycle.ending import fail, give_reason
from folkmoot.server.trainings.models import Assignment, Round, Training, Update
from folkmoot.server.trainings.moves import deadline, locked, locked_if_there, move_round
from folkmoot.server.trainings.round_metrics import note_round_metrics
from folkmoot.server.trainings.strategies import buffer_of, needed_updates
from folkmoot.server.trainings.transitions import RoundEvent


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
    current = admission.check_may_submit(training, participant, round=round, received_sha256=stored.received_sha256)
    if isinstance(current, Update):
        return current, False
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
    current.assignments.filter(user=participant).update(doing=Doing.UPLOADED, percent=None, reason="")
    note_metrics(training.model_id, metrics, reporter=participant, step=round, phase=Phase.TRAIN)
    settle(training.pk, NotificationType.UPDATE_ROUND_START, round, recipient=participant)
    record(training.pk, "update_received", {"round": round, "participant": str(participant.pk)})
    # At most one is open; in asynchronous training an update may have begun with one before it.
    open_rounds = [current] if current.state == RoundState.OPEN else training.rounds.filter(state=RoundState.OPEN)
    for open_round in open_rounds:
        fill_if_complete(training, open_round)
    fault_point("upload.before_commit")
    return update, True


@transaction.atomic
def go_on_if_complete(training_id: UUID, *, round: int) -> None:
    """See whether those whose updates can still be expected in this round have all answered."""
    training = locked_if_there(pk=training_id)
    if training is None:
        return
    for current in training.rounds.filter(number=round):
        fill_if_complete(training, current)


@transaction.atomic
def give_up_on(training: Training, participant: User, *, round: int, doing: Doing, reason: str) -> None:
    """The participant says that no update of its will come, as it has failed or declines: nobody waits for one.

    It keeps its place in the next round, and may still send one while this one is open. Raises what
    `admission.check_may_report` raises.
    """
    training = locked(training.pk)
    admission.check_may_report(training, participant, round=round)
    current = training.rounds.get(number=round)
    said = current.assignments.unanswered().filter(user=participant)
    if said.update(doing=doing, percent=None, reason=reason, reported_at=clock.now()):
        facts = {"round": round, "participant": str(participant.pk), "reason": reason}
        record(training.pk, f"participant_{doing}", facts)
        fill_if_complete(training, current)


def open_round(training: Training, *, number: int) -> None:
    """Ask for updates, or wait until enough participants are online to be asked."""
    cohort = draw_cohort(training, number)
    if cohort is None:
        return
    if availability.lacks(training, clock.now()):
        await_quorum(training, Round(training=training, number=number, state=RoundState.WAITING))
    else:
        ask(training, Round(training=training, number=number), cohort)


def await_quorum(training: Training, current: Round) -> None:
    """Have the round wait until enough participants are online to be asked."""
    current.closes_at = deadline(training)
    current.save()
    facts = {"min_available": training.settings.min_available, "attempt": current.attempt}
    record(training.pk, "round_waits", {"round": current.number, **facts})


def ask(training: Training, current: Round, cohort: cohorts.Cohort) -> None:
    """Open the round, and have its cohort asked."""
    current.goal, current.opened_at, current.closes_at = cohort.goal, clock.now(), deadline(training)
    current.save()
    Assignment.objects.bulk_create([Assignment(round=current, user_id=each) for each in cohort.members])
    daisy_chain.hand_over(training, current, cohort.members)
    record(training.pk, "round_opened", {"round": current.number, "attempt": current.attempt})
    if buffer_of(training):
        fill_if_complete(training, current)


def reopen_round(training: Training, current: Round) -> None:
    """Ask anew, after an error: those of today's participants whom the round would ask, but for who has answered."""
    cohort = draw_cohort(training, current.number)
    if cohort is None:
        return
    answered = training.participants.filter(pk__in=current.updates.standing().values("participant"))
    members = {*cohort.members, *answered.values_list("pk", flat=True)}
    current.goal, current.opened_at = cohort.goal, clock.now()
    current.save(update_fields=["goal", "opened_at"])
    current.cohort.set(User.objects.filter(pk__in=members))
    current.counted.update(counted_in=None)
    _assign_anew(current)
    handed = current.handovers.values_list("participant", flat=True)
    daisy_chain.hand_over(training, current, members.difference(handed))
    record(training.pk, "round_opened", {"round": current.number, "attempt": current.attempt})
    fill_if_complete(training, current)


def draw_cohort(training: Training, number: int) -> cohorts.Cohort | None:
    """Whom the round asks; None, and the training has failed, where too few take part."""
    participants = list(training.participants.values_list("pk", flat=True))
    needed = needed_updates(training)
    if not participants:
        fail(training.pk, f"No participants are left for round {ordinal(number)}.", code=ReasonCode.NO_PARTICIPANTS)
        return None
    if len(participants) < needed:
        reason = _too_few(training, f"round {ordinal(number)} has {len(participants)} participants")
        fail(training.pk, reason, code=ReasonCode.TOO_FEW_PARTICIPANTS)
        return None
    return cohorts.draw(participants, training.settings, round=number, at_least=needed)


def fill_if_complete(training: Training, current: Round) -> None:
    """Go on once nobody is awaited any more; some may be missing, but fewer than suffice at the deadline never do."""
    if current.state != RoundState.OPEN or not training.is_under_way:
        return
    if _ends_early(training, current):
        fill(training, current)
        return
    if current.awaits_anybody():
        return
    arrived, is_missing = buffering.arrived(training, current).count(), current.missing().exists()
    if arrived < needed_updates(training):
        # With nobody left to send another, waiting for the deadline would change nothing.
        if not is_missing:
            reason = _too_few(training, f"round {ordinal(current.number)} has {arrived}")
            fail(training.pk, reason, code=ReasonCode.TOO_FEW_UPDATES)
    elif not is_missing or arrived >= least(training):
        fill(training, current)


def _ends_early(training: Training, current: Round) -> bool:
    """Whether as many updates are in as it is to have, although others may still come."""
    buffer = buffer_of(training)
    wanted = buffer.size if buffer else current.goal
    return wanted is not None and buffering.arrived(training, current).count() >= wanted


def least(training: Training) -> int:
    """How many updates suffice where others are missing."""
    return max(training.settings.min_updates or 1, needed_updates(training))


def _too_few(training: Training, found: str) -> str:
    return f"{training.aggregation_method} needs {needed_updates(training)} updates, and {found}."


def fill(training: Training, current: Round) -> None:
    settle(training.pk, NotificationType.UPDATE_ROUND_START, current.number)
    if daisy_chain.passes_on(training, current):
        note_late(current)
        _pass_on(training, current)
        return
    _take(training, current)
    if not buffer_of(training):
        note_late(current)
    move_round(current, RoundEvent.FILL)
    current.save()
    record(training.pk, "round_full", {"round": current.number})


def note_late(current: Round) -> None:
    """The round goes on without those who are missing; those who have said why are not late."""
    said_why = [each for each in Doing if each.gives_up]
    missing = current.assignments.filter(user__in=current.missing().order_by().values("pk"))
    missing.exclude(doing__in=said_why).update(doing=Doing.LATE, percent=None)


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
    note_round_metrics(training, current)
    open_round(training, number=current.number + 1)


def retry(training: Training, current: Round) -> None:
    move_round(current, RoundEvent.RETRY)
    current.attempt += 1
    current.closes_at = deadline(training)
    current.save()
    current.counted.update(counted_in=None)
    _assign_anew(current)
    give_reason(training, "")
    record(training.pk, "round_opened", {"round": current.number, "attempt": current.attempt})
    fill_if_complete(training, current)


def _assign_anew(current: Round) -> None:
    """Whatever those who are missing have said of the attempt before, they are asked once more."""
    missing = current.assignments.filter(user__in=current.missing().order_by().values("pk"))
    missing.update(doing=Doing.ASSIGNED, percent=None, reason="")
