"""Who may send calibration statistics of a checkpoint, until when they may be replaced, and who may see what."""

from __future__ import annotations

from django.db import transaction

from folkmoot.errors import InvalidValue, NotAllowed, NotFound
from folkmoot.protocol.states import RoundState
from folkmoot.server.accounts.models import User
from folkmoot.server.registry.calibration import MergedCalibration, merged_calibration, note_calibration
from folkmoot.server.registry.models import Model
from folkmoot.server.trainings.models import Training
from folkmoot.server.trainings.moves import locked_if_there
from folkmoot.server.trainings.named_rounds import RoundName, number_of
from folkmoot.uncertainty import Statistics

FEWEST = 2
"""Participants whose statistics are shown to everybody who may see the model: those of one alone are its own."""


NOT_CALIBRATED = "There are no calibration statistics for checkpoint {round} of model {id} that you may see."


@transaction.atomic
def receive_calibration(model: Model, participant: User, *, round: int, statistics: Statistics) -> bool:
    """Count the statistics of the checkpoint of a round, tested or not; return whether they are new.

    While that round is tested they take the place of earlier ones. Raises NotFound without a training, NotAllowed for
    who takes no part, and what `note_calibration` raises.
    """
    # Locked: what closes the test must not come between the question and the note.
    training = locked_if_there(model=model)
    if training is None:
        raise NotFound(f"Model with ID {model.pk} does not have a training process running")
    if not training.has_participant(participant):
        raise NotAllowed(f"You are not a participant of training {training.pk}!")
    if not model.checkpoints.filter(round=round).exists():
        raise InvalidValue(f"round: model {model.pk} has no checkpoint {round}")
    is_tested = training.rounds.filter(number=round - 1, state=RoundState.TESTING).exists()
    return note_calibration(model, participant, round=round, statistics=statistics, may_replace=is_tested)


def shown_calibration(model: Model, round: RoundName, *, shown_to: User) -> MergedCalibration:
    """The merged statistics of the checkpoint after `round` rounds, by default the latest.

    Raises NotFound where there are none; those of one participant are for itself, the actor and staff alone.
    """
    known = number_of(model, round)
    number = model.round if known is None else known
    found = merged_calibration(model, number)
    if found is None or not (found.participants >= FEWEST or _may_see_one(model, number, shown_to)):
        raise NotFound(NOT_CALIBRATED.format(round=number, id=model.pk))
    return found


def _may_see_one(model: Model, round: int, user: User) -> bool:
    steers = Training.objects.steered_by(user).filter(model=model)
    own = model.calibrations.filter(round=round, participant=user)
    return user.is_staff or steers.exists() or own.exists()
