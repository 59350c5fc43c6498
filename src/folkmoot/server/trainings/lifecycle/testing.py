"""Having a new model tested, and closing its round."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from folkmoot.protocol.notifications import NotificationType
from folkmoot.protocol.reasons import ReasonCode
from folkmoot.protocol.rounds import ordinal
from folkmoot.protocol.states import RoundState, UpdateStatus
from folkmoot.server.accounts.models import User
from folkmoot.server.faults import fault_point
from folkmoot.server.notifications.delivery import settle
from folkmoot.server.outbox.events import record
from folkmoot.server.registry.models import Metric, Model, Phase
from folkmoot.server.registry.services import Metrics, note_metrics
from folkmoot.server.trainings import buffering
from folkmoot.server.trainings.goals import reason_to_stop
from folkmoot.server.trainings.lifecycle.collecting import open_round
from folkmoot.server.trainings.lifecycle.ending import stop_now
from folkmoot.server.trainings.models import Round, Training
from folkmoot.server.trainings.moves import deadline, locked_if_there, move, move_round
from folkmoot.server.trainings.round_metrics import note_round_metrics
from folkmoot.server.trainings.strategies import tested
from folkmoot.server.trainings.transitions import RoundEvent, TrainingEvent


@transaction.atomic
def receive_metrics(model: Model, reporter: User, metrics: Metrics, *, round: int | None = None) -> None:
    """Note the metrics; in a test round they are the reporter's answer, and the last answer closes the round.

    They are of the model after `round` rounds, by default as it is: those of another than is tested are no answer.
    """
    training = locked_if_there(model=model)
    testing = _testing_round(training, cohort=reporter)
    if training is None or testing is None or round not in (None, training.model.round):
        model.refresh_from_db(fields=["round"])
        note_metrics(model.pk, metrics, reporter=reporter, step=model.round if round is None else round)
        return
    # The last answer counts: one that is sent again takes the place of the first.
    _test_answers(training).filter(reporter=reporter).delete()
    note_metrics(training.model_id, metrics, reporter=reporter, step=training.model.round, phase=Phase.TEST)
    settle(training.pk, NotificationType.MODEL_TEST_ROUND, training.model.round, recipient=reporter)
    close_if_tested(training, testing)
    fault_point("metrics.before_commit")


@transaction.atomic
def excuse_from_test(training_id: UUID, user_id: UUID, *, round: int) -> None:
    """Do not wait for this participant's metrics: it counts as missing in this one test."""
    training = locked_if_there(pk=training_id)
    testing = _testing_round(training)
    if training is not None and testing is not None and training.model.round == round:
        dismiss(testing, [user_id])
        close_if_tested(training, testing)


def test_or_close(training: Training, current: Round) -> None:
    if not _is_tested(training, current):
        close(training, current)
        return
    move_round(current, RoundEvent.TEST)
    current.closes_at = deadline(training)
    current.save()
    record(training.pk, "test_opened", {"round": training.model.round})
    close_if_tested(training, current)


def _is_tested(training: Training, current: Round) -> bool:
    tests = tested(training)
    return tests == "every_round" or (tests == "final" and _is_last(training, current))


def _is_last(training: Training, current: Round) -> bool:
    return ordinal(current.number) - training.first_round >= training.target_num_updates


def _testing_round(training: Training | None, **narrowed: Any) -> Round | None:
    if training is None or not training.is_begun:
        return None
    return training.rounds.filter(state=RoundState.TESTING, **narrowed).first()


def _test_answers(training: Training) -> QuerySet[Metric]:
    return training.model.metrics.filter(step=training.model.round, phase=Phase.TEST)


def close_if_tested(training: Training, current: Round) -> None:
    if not training.is_under_way:
        return
    reporters = _test_answers(training).values("reporter")
    answers = current.cohort.filter(pk__in=reporters).count()
    if current.has_enough(answers) or not current.cohort.exclude(pk__in=reporters).exists():
        close(training, current)


def close(training: Training, current: Round) -> None:
    move_round(current, RoundEvent.CLOSE)
    current.save()
    settle(training.pk, NotificationType.MODEL_TEST_ROUND, training.model.round)
    record(training.pk, "round_closed", {"round": current.number})
    note_round_metrics(training, current)
    if _is_last(training, current):
        _finish(training)
    elif reason := reason_to_stop(training):
        training.reason, training.reason_code = reason, ReasonCode.STOPPED_EARLY
        _finish(training, code=ReasonCode.STOPPED_EARLY, reason=reason)
    elif training.stops_after_round:
        stop_now(training, reason=f"Stopped at the end of round {ordinal(current.number)}.", code=ReasonCode.STOPPED)
    else:
        open_round(training, number=current.number + 1)


def _finish(training: Training, **why: str) -> None:
    buffering.waiting(training).update(status=UpdateStatus.LATE, reason="the training had all it needed")
    move(training, TrainingEvent.FINISH)
    record(training.pk, "training_finished", why)


def dismiss(current: Round, users: Iterable[UUID]) -> None:
    current.cohort.remove(*User.objects.filter(pk__in=users))
