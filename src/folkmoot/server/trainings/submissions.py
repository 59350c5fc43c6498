"""Taking in an update: first whether it may come, then what it is, then the round's own decision."""

from __future__ import annotations

from uuid import UUID

from folkmoot.errors import AlreadySubmitted, NotAllowed, NotFound
from folkmoot.server.accounts.models import User
from folkmoot.server.faults import fault_point
from folkmoot.server.registry import intake
from folkmoot.server.registry.models import Model
from folkmoot.server.registry.services import Metrics
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.trainings import admission, lifecycle
from folkmoot.server.trainings.exchange import expected_update
from folkmoot.server.trainings.models import Training, Update


def find_target(pk: UUID) -> Model | Update | None:
    """What an update may be sent to: a global model or, in daisy chaining, a local one, also when it is aggregated."""
    updates = Update.objects.select_related("round__training__model")
    return Model.objects.filter(pk=pk).first() or updates.filter(pk=pk).first()


def submit(
    model: Model | Update,
    participant: User,
    incoming: IncomingFile,
    *,
    round: int,
    sample_size: int,
    metrics: Metrics,
) -> tuple[Update, bool]:
    """Count the update; return it, and whether it is new. Raises what `lifecycle.receive_update` and intake raise."""
    training = _training_of(model, participant)
    earlier = admission.check_may_submit(training, participant, round=round, received_sha256=incoming.sha256)
    if earlier is not None:
        return earlier, False
    stored = intake.store_update(incoming, expected=expected_update(training, participant, round))
    received = lifecycle.receive_update(
        training,
        participant,
        round=round,
        stored=stored,
        num_examples=sample_size,
        metrics=metrics,
    )
    fault_point("upload.after_commit")
    return received


def check(model: Model | Update, participant: User, *, round: int, received_sha256: str = "") -> None:
    """See, before the bytes come, that the update may; raises what `submit` would.

    Without its digest, one after another is let pass: it may be the same bytes again.
    """
    training = _training_of(model, participant)
    try:
        admission.check_may_submit(training, participant, round=round, received_sha256=received_sha256)
    except AlreadySubmitted:
        if received_sha256:
            raise


def _training_of(model: Model | Update, participant: User) -> Training:
    if isinstance(model, Update):
        if not model.handovers.filter(participant=participant).exists():
            raise NotAllowed(f"Local model {model.pk} was not sent to you.")
        return model.round.training
    training = Training.objects.select_related("model").filter(model=model).first()
    if training is None:
        raise NotFound(f"Model with ID {model.pk} does not have a training process running")
    return training
