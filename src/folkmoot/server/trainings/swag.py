"""Moments of a new model: taken in from the participants, and merged into the model's own."""

from __future__ import annotations

import logging
from uuid import UUID

import numpy as np

from folkmoot.aggregation import Update as AggregationUpdate
from folkmoot.aggregation import aggregate_files
from folkmoot.aggregation.builtin import fedavg
from folkmoot.errors import DamagedUpdate, NotFound
from folkmoot.protocol.states import RoundState, TrainingState
from folkmoot.server.accounts.models import User
from folkmoot.server.faults import fault_point
from folkmoot.server.registry.intake import StoredFile, described
from folkmoot.server.registry.models import Model
from folkmoot.server.registry.moments import moments_schema, received_digest, store_moments
from folkmoot.server.storage import get_storage
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.trainings import admission, lifecycle
from folkmoot.server.trainings.models import Round, Training
from folkmoot.tensors import write_tensors

logger = logging.getLogger(__name__)


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
    """Make the model's moments, weighted by examples, if that is still wanted, without those that are damaged.

    Raises AggregationFailed.
    """
    full = Round.objects.select_related("training__model").filter(training=training_id, number=number)
    wanted = full.filter(state=RoundState.MERGING, training__state=TrainingState.ONGOING)
    while current := wanted.first():
        try:
            merged = _merged(current)
        except DamagedUpdate as damage:
            logger.error("training %s, moments of round %d: %s", training_id, number, damage)
            lifecycle.reject_moments(current, UUID(damage.update_id), reason=damage.message)
            continue
        fault_point("swag_full.blob_written")
        lifecycle.finish_swag(current, merged)
        fault_point("swag_full.after_commit")


def _merged(current: Round) -> StoredFile:
    storage = get_storage()
    inputs = [
        AggregationUpdate(
            str(each.participant_id), storage.path(each.sha256), each.num_examples, checksums=bytes(each.checksums)
        )
        for each in current.statistics.with_examples()
    ]
    with storage.draft() as start, storage.draft() as draft:
        # A mean begins nowhere: these zeros have the layout of all.
        schema = moments_schema(current.training.model)
        write_tensors(start, {spec.name: np.zeros(spec.shape, spec.numpy_dtype) for spec in schema})
        report = aggregate_files(fedavg(), start, inputs, draft)
        merged = described(draft, report.sha256, report.num_bytes)
        storage.adopt(draft, merged.sha256)
    return merged
