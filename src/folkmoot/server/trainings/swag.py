"""Moments of a new model: taken in from the participants, and merged into the model's own."""

from __future__ import annotations

from uuid import UUID

from folkmoot.aggregation import Update as AggregationUpdate
from folkmoot.aggregation import aggregate_files
from folkmoot.aggregation.builtin import fedavg
from folkmoot.errors import NotFound
from folkmoot.protocol.states import RoundState, TrainingState
from folkmoot.server.accounts.models import User
from folkmoot.server.faults import fault_point
from folkmoot.server.registry.intake import described
from folkmoot.server.registry.models import Model
from folkmoot.server.registry.moments import received_digest, store_moments
from folkmoot.server.storage import get_storage
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.trainings import admission, lifecycle
from folkmoot.server.trainings.models import Round, Training


def submit_moments(
    model: Model,
    participant: User,
    *,
    round: int,
    sample_size: int,
    files: tuple[IncomingFile, IncomingFile] | None,
) -> bool:
    """Count the moments, or that there are none; return whether they are new. Raises as for updates."""
    training = Training.objects.select_related("model").filter(model=model).first()
    if training is None:
        raise NotFound(f"Model with ID {model.pk} does not have a training process running")
    digest = received_digest(*files) if files else ""
    if admission.check_may_send_moments(training, participant, round=round, received_sha256=digest):
        return False
    stored = store_moments(model, *files) if files else None
    is_new = lifecycle.receive_moments(training, participant, round=round, stored=stored, num_examples=sample_size)
    fault_point("swag.after_commit")
    return is_new


def merge_moments(training_id: UUID, number: int) -> None:
    """Make the model's moments, weighted by examples, if that is still wanted; raises AggregationFailed."""
    full = Round.objects.filter(training=training_id, number=number, state=RoundState.MERGING)
    current = full.filter(training__state=TrainingState.ONGOING).first()
    if current is None:
        return
    storage = get_storage()
    inputs = [
        AggregationUpdate(str(each.participant_id), storage.path(each.sha256), each.num_examples)
        for each in current.statistics.filter(num_examples__gt=0)
    ]
    draft = storage.new_incoming()
    try:
        # A mean begins nowhere: the first of the files stands for the layout of all.
        report = aggregate_files(fedavg(), storage.path(current.statistics.exclude(sha256="")[0].sha256), inputs, draft)
        merged = described(draft, report.sha256, report.num_bytes)
        storage.adopt(draft, merged.sha256)
    finally:
        draft.unlink(missing_ok=True)
    fault_point("swag_full.blob_written")
    lifecycle.finish_swag(current, merged)
    fault_point("swag_full.after_commit")
