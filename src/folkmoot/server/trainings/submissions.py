"""Taking in an update: first whether it may come, then what it is, then the round's own decision."""

from __future__ import annotations

from uuid import UUID

from folkmoot.errors import AlreadySubmitted, NotAllowed, NotFound
from folkmoot.server.accounts.models import User
from folkmoot.server.faults import fault_point
from folkmoot.server.notifications.presence import note_seen
from folkmoot.server.registry import intake
from folkmoot.server.registry.models import Model
from folkmoot.server.registry.services import Metrics
from folkmoot.server.rows import the_one
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.trainings import admission, lifecycle
from folkmoot.server.trainings.exchange import expected_update
from folkmoot.server.trainings.models import Round, Training, Update
from folkmoot.server.trainings.strategies import check_metrics


def find_target(pk: UUID) -> Model | Update | None:
    """What an update may be sent to: a global model or, in daisy chaining, a local one, also when it is aggregated."""
    models, updates = Model.objects.select_related("training"), Update.objects.select_related("round__training__model")
    return the_one(models.filter(pk=pk)) or the_one(updates.filter(pk=pk))


def submit(
    model: Model | Update,
    participant: User,
    incoming: IncomingFile,
    *,
    round: int,
    sample_size: int,
    metrics: Metrics,
    is_first: bool = False,
) -> tuple[Update, bool]:
    """Count the update; return it, and whether it is new. Raises what `lifecycle.receive_update` and intake raise.

    One without a metric that the strategy needs is InvalidValue: it may be sent again, with it. `is_first`: what
    `check` has returned, after which only the locked training is asked once more.
    """
    note_seen(participant)
    training = _training_of(model, participant)
    if not is_first:
        found = admission.check_may_submit(training, participant, round=round, received_sha256=incoming.sha256)
        if isinstance(found, Update):
            return found, False
    check_metrics(training, metrics)
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


def check(model: Model | Update, participant: User, *, round: int, received_sha256: str = "") -> bool:
    """See, before the bytes come, that the update may; raises what `submit` would. Returns whether none has come yet.

    Without its digest, one after another is let pass: it may be the same bytes again.
    """
    training = _training_of(model, participant)
    try:
        found = admission.check_may_submit(training, participant, round=round, received_sha256=received_sha256)
        return isinstance(found, Round)
    except AlreadySubmitted:
        if received_sha256:
            raise
        return False


def _training_of(model: Model | Update, participant: User) -> Training:
    if isinstance(model, Update):
        if not model.handovers.filter(participant=participant).exists():
            raise NotAllowed(f"Local model {model.pk} was not sent to you.")
        return model.round.training
    training: Training | None = getattr(model, "training", None)
    if training is None:
        raise NotFound(f"Model with ID {model.pk} does not have a training process running")
    return training
