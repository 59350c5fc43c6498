"""What follows from each event. A handler may run twice: it asks first whether its work is still wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db import transaction

from folkmoot.errors import AggregationFailed, Unavailable
from folkmoot.protocol.notifications import NotificationType
from folkmoot.protocol.reasons import ReasonCode
from folkmoot.protocol.rounds import ordinal
from folkmoot.protocol.states import RoundState
from folkmoot.server.faults import fault_point
from folkmoot.server.notifications.delivery import Message, deliver, lock_recipients
from folkmoot.server.notifications.models import Notification
from folkmoot.server.notifications.push import PUSH_FAILED, PUSH_REJECTED
from folkmoot.server.outbox.events import AwaitsStorage, handles
from folkmoot.server.outbox.leases import hold
from folkmoot.server.outbox.models import Event
from folkmoot.server.storage.failing import naming_failing_storage
from folkmoot.server.trainings import lifecycle, rounds, sharding, swag
from folkmoot.server.trainings.models import Round, Training
from folkmoot.server.trainings.strategies import buffer_of


def fail_training(event: Event) -> None:
    """What happens when an event of a training could not be handled, however often it was tried."""
    reason = event.error or "the server ended each time before it was done"
    _fail(event, f"{event.kind} could not be handled: {reason}", code=ReasonCode.INTERNAL)


@handles("round_opened", give_up=fail_training)
@transaction.atomic
def announce_round(event: Event) -> None:
    """Ask those for an update whose update is not in; who is new to the training hears of its start first."""
    fault_point("round_opened.before_notify")
    current = _locked_round(event, state=RoundState.OPEN)
    if current is None:
        return
    missing = list(current.missing().values_list("pk", flat=True))
    rejected = dict(current.updates.rejected().values_list("participant", "reason"))
    lock_recipients(missing)
    started = Message(NotificationType.TRAINING_START, event.subject, {"global_model_uuid": _model_id(current)})
    deliver(started, missing)
    sent = dict(current.handovers.values_list("participant", "update"))
    of_their_own = sent.keys() | rejected.keys()
    deliver(_round_start(current, current.training.model_id), [each for each in missing if each not in of_their_own])
    for participant in missing:
        if participant in of_their_own:
            model = sent.get(participant, current.training.model_id)
            deliver(_round_start(current, model, rejected.get(participant, "")), [participant])


def fail_round(event: Event) -> None:
    """As above, of one that makes something of a round's files; what came in is kept, to be tried again."""
    number, reason = ordinal(event.payload["round"]), event.error or "the server ended each time before it was done"
    code = ReasonCode.STORAGE if event.waits_since else ReasonCode.INTERNAL
    _fail(event, f"Round {number} could not be aggregated: {reason}", code=code)


@transaction.atomic
def _fail(event: Event, reason: str, *, code: ReasonCode) -> None:
    """End the training, but not on the word of a worker that another has overtaken, nor for a shard of a pass that is
    over: these speak of what was.
    """
    if hold(event) and _is_awaited(event):
        lifecycle.fail(_training_of(event), reason, code=code)


def _is_awaited(event: Event) -> bool:
    return "pass" not in event.payload or sharding.is_awaited(UUID(event.payload["pass"]))


@contextmanager
def _waiting_for_storage(event: Event) -> Iterator[None]:
    """Say what is waited for where files cannot be read or written for the moment."""
    try:
        with naming_failing_storage():
            yield
    except Unavailable as error:
        lifecycle.note_wait(_training_of(event), round=event.payload["round"], reason=error.message)
        raise AwaitsStorage(error.message) from error


@contextmanager
def _aggregating(event: Event) -> Iterator[None]:
    """Updates that cannot be made into a model end the training."""
    try:
        with _waiting_for_storage(event):
            yield
    except AggregationFailed as error:
        reason = f"Round {ordinal(event.payload['round'])} could not be aggregated: {error}"
        _fail(event, reason, code=_code_of(error))


def _code_of(error: AggregationFailed) -> ReasonCode:
    """Its own, unless a strategy that was installed has made it up."""
    return ReasonCode(error.code) if error.code in list(ReasonCode) else ReasonCode.AGGREGATION_FAILED


def _training_of(event: Event) -> UUID:
    """Its subject, but for a shard's, which has a subject of its own and names the training."""
    return UUID(event.payload["training"]) if "training" in event.payload else event.subject


@handles("round_full", give_up=fail_round)
def aggregate_round(event: Event) -> None:
    """Make the next model, or have many workers make it."""
    with _aggregating(event):
        if not sharding.begin(event.subject, event.payload["round"]):
            rounds.aggregate(event.subject, event.payload["round"])


# Of a pass by many workers that has to be done anew.
handles("shards_void", give_up=fail_round)(aggregate_round)


@handles("shard_wanted", give_up=fail_round)
def aggregate_shard(event: Event) -> None:
    """Make one shard of the next model."""
    with _aggregating(event):
        sharding.aggregate(UUID(event.payload["pass"]), event.payload["shard"])


@handles("shards_done", give_up=fail_round)
def join_shards(event: Event) -> None:
    """Make the model of the shards; aggregate anew where these are not of the updates that stand in the round."""
    is_used = True
    with _aggregating(event):
        is_used = sharding.finish(event.subject, event.payload["round"])
    if not is_used:
        aggregate_round(event)


@handles("swag_opened", give_up=fail_training)
@transaction.atomic
def announce_swag(event: Event) -> None:
    """Ask the round's cohort for the moments of their parameters."""
    fault_point("swag_opened.before_notify")
    current = _locked_round(event, state=RoundState.SWAG)
    if current is None:
        return
    number = current.number + 1
    body = {"round": number, "global_model_uuid": _model_id(current), **current.training.settings.for_participants()}
    kind = NotificationType.SWAG_ROUND_START
    message = Message(kind, event.subject, body, round=number, attempt=current.attempt)
    awaited = current.cohort.exclude(pk__in=current.statistics.values("participant"))
    deliver(message, awaited.values_list("pk", flat=True))


@handles("swag_full", give_up=fail_round)
def merge_moments(event: Event) -> None:
    """Make the model's moments; those that cannot be merged end the training."""
    try:
        with _waiting_for_storage(event):
            swag.merge_moments(event.subject, event.payload["round"])
    except AggregationFailed as error:
        reason = f"The moments of round {ordinal(event.payload['round'])} could not be merged: {error}"
        _fail(event, reason, code=_code_of(error))


@handles("test_opened", give_up=fail_training)
@transaction.atomic
def announce_test(event: Event) -> None:
    """Ask the round's cohort for the new model's metrics."""
    fault_point("test_opened.before_notify")
    current = _locked_round(event, state=RoundState.TESTING)
    if current is None:
        return
    number = current.number + 1
    body = {"round": number, "global_model_uuid": _model_id(current), **current.training.settings.exchanged()}
    kind = NotificationType.MODEL_TEST_ROUND
    message = Message(kind, event.subject, body, round=number, attempt=current.attempt)
    deliver(message, current.cohort.values_list("pk", flat=True))


@handles("training_resumed", give_up=fail_training)
def announce_step(event: Event) -> None:
    """Ask those whom the pause has kept from being asked; of these three at most one finds its step open."""
    announce_round(event)
    announce_swag(event)
    announce_test(event)


@handles("training_finished")
@handles("training_stopped")
def announce_end(event: Event) -> None:
    """Tell the participants and the actor."""
    training = Training.objects.filter(pk=event.subject).first()
    if training is None:
        return
    recipients = [training.actor_id, *training.participants.values_list("pk", flat=True)]
    body = {"global_model_uuid": str(training.model_id)}
    deliver(Message(NotificationType.TRAINING_FINISHED, event.subject, body), recipients)


@handles("participants_removed")
def announce_removal(event: Event) -> None:
    """Tell those who were removed."""
    training = Training.objects.filter(pk=event.subject).first()
    if training is None:
        return
    removed: Iterable[UUID] = [UUID(user) for user in event.payload["users"]]
    body = {"global_model_uuid": str(training.model_id)}
    # The event's id for an attempt: who joins again and is removed again hears of it again.
    deliver(Message(NotificationType.CLIENT_REMOVED, event.subject, body, attempt=event.pk), removed)


@handles(PUSH_REJECTED)
def mind_rejection(event: Event) -> None:
    """An endpoint that rejects a round's start leaves the training; one that rejects another step is not awaited."""
    facts, recipient = event.payload, UUID(event.payload["recipient"])
    training = Training.objects.filter(pk=event.subject).first()
    if training is None:
        return
    if facts["type"] == NotificationType.UPDATE_ROUND_START:
        if not training.rounds.filter(number=facts["round"], state=RoundState.OPEN).exists():
            return  # the rejection of a round that is over says nothing about the next
        users = training.participants.filter(pk=recipient)
        lifecycle.remove_participants(training, users, reason="its endpoint rejected the round")
    else:
        _excuse(training, recipient, facts)


@handles(PUSH_FAILED)
def mind_silence(event: Event) -> None:
    """Whose endpoint cannot be reached, and who does not poll, counts as missing in this step."""
    facts, recipient = event.payload, UUID(event.payload["recipient"])
    training = Training.objects.filter(pk=event.subject).first()
    if training is None:
        return
    if facts["type"] == NotificationType.UPDATE_ROUND_START:
        lifecycle.go_on_if_complete(training.pk, round=facts["round"])
    elif _never_came(training, recipient, facts):
        _excuse(training, recipient, facts)


def _excuse(training: Training, recipient: UUID, facts: dict[str, Any]) -> None:
    if facts["type"] == NotificationType.MODEL_TEST_ROUND:
        lifecycle.excuse_from_test(training.pk, recipient, round=facts["round"])
    elif facts["type"] == NotificationType.SWAG_ROUND_START:
        for participant in training.participants.filter(pk=recipient):
            lifecycle.excuse_from_swag(training.pk, participant, round=facts["round"])


def _never_came(training: Training, recipient: UUID, facts: dict[str, Any]) -> bool:
    said = Notification.objects.about(training.pk, facts["type"], facts["round"])
    return said.lost().filter(recipient=recipient).exists()


def _round_start(current: Round, model_id: UUID, rejected: str = "") -> Message:
    """What asks for an update to this model, the global one or another's local one.

    `rejected` says what was found against the one that came before.
    """
    body = {
        "round": current.number,
        "global_model_uuid": str(model_id),
        "attempt": current.attempt,
        **current.training.settings.for_participants(),
        **({"rejected": rejected} if rejected else {}),
    }
    if buffer_of(current.training):
        # The model may have moved on by the time that a participant fetches it, and its update tells of this one.
        body["checkpoint"] = current.number
    kind = NotificationType.UPDATE_ROUND_START
    return Message(kind, current.training_id, body, round=current.number, attempt=current.attempt)


def _locked_round(event: Event, *, state: RoundState) -> Round | None:
    """The round in this state, with its training locked, unless that is paused: what is sent now is not out of date."""
    training = Training.objects.select_for_update().filter(pk=event.subject).first()
    if training is None or not training.is_under_way:
        return None
    return training.rounds.select_related("training").filter(state=state).first()


def _model_id(current: Round) -> str:
    return str(current.training.model_id)
