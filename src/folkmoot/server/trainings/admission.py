"""Whether an update, or moments, may come in, and if not, why."""

from __future__ import annotations

from folkmoot.errors import AlreadySubmitted, FolkmootError, NotAllowed, RoundClosed, RoundNotOpen, WrongState
from folkmoot.protocol.states import RoundState, TrainingState
from folkmoot.server.accounts.models import User
from folkmoot.server.trainings import buffering
from folkmoot.server.trainings.models import SwagStatistic, Training, Update
from folkmoot.server.trainings.strategies import buffer_of


def check_may_submit(
    training: Training,
    participant: User,
    *,
    round: int,
    received_sha256: str,
) -> Update | None:
    """Return the update that these bytes were before; None if they may come in now.

    Raises NotAllowed for who takes no part, AlreadySubmitted for other bytes than the first, WrongState,
    RoundClosed or RoundNotOpen where nothing may come in.
    """
    is_awaited = _is_awaited(training, participant, round)
    # After the round was looked at: what has closed it meanwhile may be this very update, on another connection.
    sent = Update.objects.filter(round__training=training, round__number=round, participant=participant)
    earlier = sent.standing().first()
    if earlier is None and not is_awaited:
        # What was rejected once the round was over has had its answer.
        earlier = sent.filter(received_sha256=received_sha256).first()
        if earlier is None:
            raise _refusal(training, participant, round)
    if earlier is not None and earlier.received_sha256 != received_sha256:
        raise AlreadySubmitted(f"another update of yours counts in round {round} already")
    return earlier


def check_may_send_moments(
    training: Training,
    participant: User,
    *,
    round: int,
    received_sha256: str,
) -> SwagStatistic | None:
    """Return the moments that these bytes were before; None if they may come in now. Raises as for updates."""
    collecting = training.rounds.filter(number=round - 1, state=RoundState.SWAG, cohort=participant)
    is_awaited = training.state == TrainingState.SWAG_ROUND and collecting.exists()
    sent = SwagStatistic.objects.filter(round__training=training, round__number=round - 1, participant=participant)
    earlier = sent.first()
    if earlier is None and not is_awaited:
        raise _refusal_of_moments(training, participant, round)
    if earlier is not None and earlier.received_sha256 != received_sha256:
        raise AlreadySubmitted(f"other moments of yours count in round {round} already")
    return earlier


def _is_awaited(training: Training, participant: User, number: int) -> bool:
    """Whether the round is open to this participant: who leaves the training leaves the cohort too."""
    if buffer := buffer_of(training):
        return buffering.may_still_come(training, participant, number, buffer)
    open_to_it = training.rounds.filter(number=number, state=RoundState.OPEN, cohort=participant)
    return training.state == TrainingState.ONGOING and open_to_it.exists()


def _refusal(training: Training, participant: User, number: int) -> FolkmootError:
    """Why no update of a participant that is not awaited may come in."""
    if not training.has_participant(participant):
        return NotAllowed(f"You are not a participant of training {training.pk}!")
    if training.state != TrainingState.ONGOING:
        return WrongState(f"Training with ID {training.pk} is in state {training.state}")
    if training.rounds.filter(number=number, state=RoundState.OPEN).exists():
        return RoundNotOpen(f"you joined during round {number}; you are asked from the next one")
    sentence = f"Training with ID {training.pk} is not currently in round {number}"
    begun = training.rounds.filter(number=number).exists() or number < training.model.round
    return RoundClosed(sentence + _why_too_stale(training, number)) if begun else RoundNotOpen(sentence)


def _why_too_stale(training: Training, number: int) -> str:
    """Follows the sentence that refuses an update: what it would need to count in a later round. Empty if nothing."""
    buffer = buffer_of(training)
    if buffer is None or (late := buffering.staleness(training, number, buffer)) <= buffer.max_staleness:
        return ""
    return f": an update of it would count {late} rounds late, and max_staleness is {buffer.max_staleness}"


def _refusal_of_moments(training: Training, participant: User, round: int) -> FolkmootError:
    if not training.has_participant(participant):
        return NotAllowed(f"You are not a participant of training {training.pk}!")
    if training.state != TrainingState.SWAG_ROUND:
        return WrongState(f"Training with ID {training.pk} is in state {training.state}")
    if round == training.model.round:
        return RoundNotOpen(f"you joined during round {round - 1}; you are asked from the next one")
    kind = RoundClosed if round < training.model.round else RoundNotOpen
    return kind(f"Training with ID {training.pk} is not currently in round {round}")
