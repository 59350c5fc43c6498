"""How a state changes: on a locked training, as the tables say. Only lifecycle/ calls this."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone

from folkmoot.errors import WrongState
from folkmoot.protocol.states import RoundState
from folkmoot.server import clock
from folkmoot.server.rows import the_one
from folkmoot.server.trainings.models import Round, Training
from folkmoot.server.trainings.transitions import RoundEvent, TrainingEvent, next_round_state, next_training_state


def locked(training_id: UUID) -> Training:
    training = locked_if_there(pk=training_id)
    if training is None:
        raise WrongState(f"Training {training_id} was removed meanwhile.")
    return training


def locked_if_there(**wanted: Any) -> Training | None:
    # Always first: whoever wants two rows gets them in one order. The model is read when it is asked for: joined to a
    # row that was waited for, PostgreSQL would give it as it was before the wait.
    return the_one(Training.objects.select_for_update().filter(**wanted))


def move(training: Training, event: TrainingEvent) -> None:
    training.state = next_training_state(training.state, event)
    training.last_update = timezone.now()
    training.save(update_fields=["state", "last_update", "reason", "reason_code"])


def move_round(current: Round, event: RoundEvent) -> None:
    current.state = next_round_state(current.state, event)
    if current.state in (RoundState.CLOSED, RoundState.FAILED):
        current.closed_at = clock.now()


def deadline(training: Training) -> datetime:
    return clock.now() + timedelta(seconds=training.settings.round_timeout)
