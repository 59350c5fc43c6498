"""Whether an update, or moments, may come in, and if not, why."""

from __future__ import annotations

from folkmoot.errors import AlreadySubmitted, FolkmootError, NotAllowed, RoundClosed, RoundNotOpen, WrongState
from folkmoot.protocol.states import Doing, RoundState, TrainingState
from folkmoot.server.accounts.models import User
from folkmoot.server.rows import the_one
from folkmoot.server.trainings import buffering
from folkmoot.server.trainings.models import Assignment, Round, SwagStatistic, Training, Update
from folkmoot.server.trainings.strategies import buffer_of


def check_may_submit(
    training: Training,
    participant: User,
    *,
    round: int,
    received_sha256: str,
) -> Round | Update:
    """Return the round that takes the update, or the update that these bytes were before.

    Raises NotAllowed for who takes no part, AlreadySubmitted for other bytes than the first, WrongState,
    RoundClosed or RoundNotOpen where nothing may come in.
    """
    taking = _taking(training, participant, round)
    if taking is not None and not taking.updates.filter(participant=participant).exists():
        return taking
    # After the round was looked at: what has closed it meanwhile may be this very update, on another connection.
    sent = Update.objects.filter(round__training=training, round__number=round, participant=participant)
    earlier = the_one(sent.standing())
    if earlier is None and taking is not None:
        return taking
    # What was rejected once the round was over has had its answer.
    earlier = earlier or sent.filter(received_sha256=received_sha256).first()
    if earlier is None:
        raise _refusal(training, participant, round)
    if earlier.received_sha256 != received_sha256:
        raise AlreadySubmitted(f"another update of yours counts in round {round} already")
    return earlier


def check_may_report(training: Training, participant: User, *, round: int) -> None:
    """Raises as for an update of which nothing has come, unless one of the participant's may come in."""
    if _taking(training, participant, round) is None:
        raise _refusal(training, participant, round)


def check_may_send_moments(
    training: Training,
    participant: User,
    *,
    round: int,
    received_sha256: str,
) -> SwagStatistic | None:
    """Return the moments that these bytes were before; None if they may come in now. Raises as for updates."""
    current = training.rounds.filter(number=round - 1, state=RoundState.SWAG, cohort=participant).first()
    is_awaited = (
        training.is_begun and current is not None and not current.has_enough(current.statistics.with_examples().count())
    )
    sent = SwagStatistic.objects.filter(round__training=training, round__number=round - 1, participant=participant)
    earlier = sent.first()
    if earlier is None and not is_awaited:
        raise _refusal_of_moments(training, participant, round)
    if earlier is not None and earlier.received_sha256 != received_sha256:
        raise AlreadySubmitted(f"other moments of yours count in round {round} already")
    return earlier


def _taking(training: Training, participant: User, number: int) -> Round | None:
    """The round, if it takes an update of this participant: who leaves the training leaves the cohort too."""
    current = the_one(training.rounds.filter(number=number, cohort=participant))
    if current is None or not training.is_begun:
        return None
    if buffer := buffer_of(training):
        may_come = buffering.may_still_come(training, participant, current, buffer)
    else:
        # One that has enough is open only as long as the training is paused.
        has_enough = current.goal is not None and current.has_enough(current.updates.standing().count())
        may_come = current.state == RoundState.OPEN and not has_enough
    return current if may_come else None


def _refusal(training: Training, participant: User, number: int) -> FolkmootError:
    """Why no update of a participant that is not awaited may come in."""
    if not training.has_participant(participant):
        return NotAllowed(f"You are not a participant of training {training.pk}!")
    if training.state not in (TrainingState.ONGOING, TrainingState.PAUSED):
        return WrongState(f"Training with ID {training.pk} is in state {training.state}")
    if training.rounds.filter(number=number, state=RoundState.OPEN).exclude(cohort=participant).exists():
        return RoundNotOpen(f"you joined during round {number}; you are asked from the next one")
    sentence = f"Training with ID {training.pk} is not currently in round {number}"
    opened = training.rounds.filter(number=number).exclude(state=RoundState.WAITING)
    if number >= training.model.round and not opened.exists():
        return RoundNotOpen(sentence)
    return RoundClosed(sentence + (_why_too_stale(training, number) or _how_late(training, participant, number)))


def _how_late(training: Training, participant: User, number: int) -> str:
    """Follows the sentence that refuses an update of who is late."""
    asked = Assignment.objects.filter(round__training=training, round__number=number, user=participant)
    if not asked.filter(doing=Doing.LATE).exists():
        return ""
    return ": it went on without your update; you still take part, and may be asked in the next"


def _why_too_stale(training: Training, number: int) -> str:
    """Follows the sentence that refuses an update: what it would need to count in a later round. Empty if nothing."""
    buffer = buffer_of(training)
    if buffer is None or (late := buffering.staleness(training, number, buffer)) <= buffer.max_staleness:
        return ""
    return f": an update of it would count {late} rounds late, and max_staleness is {buffer.max_staleness}"


def _refusal_of_moments(training: Training, participant: User, round: int) -> FolkmootError:
    if not training.has_participant(participant):
        return NotAllowed(f"You are not a participant of training {training.pk}!")
    if training.state not in (TrainingState.SWAG_ROUND, TrainingState.PAUSED):
        return WrongState(f"Training with ID {training.pk} is in state {training.state}")
    if round == training.model.round:
        return RoundNotOpen(f"you joined during round {round - 1}; you are asked from the next one")
    kind = RoundClosed if round < training.model.round else RoundNotOpen
    return kind(f"Training with ID {training.pk} is not currently in round {round}")
