"""Moments of a new model: taken in from the participants, and merged into the model's own."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from folkmoot.errors import DamagedUpdate, NotFound
from folkmoot.protocol.states import RoundState, TrainingState
from folkmoot.server.accounts.models import User
from folkmoot.server.faults import fault_point
from folkmoot.server.notifications.presence import note_seen
from folkmoot.server.registry.intake import StoredFile, described
from folkmoot.server.registry.models import Model
from folkmoot.server.registry.moments import moments_schema, received_digest, store_moments
from folkmoot.server.storage import get_storage
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.trainings import admission, lifecycle
from folkmoot.server.trainings.merging import carry_out, checksums_of, merging_of
from folkmoot.server.trainings.models import Round, Training
from folkmoot.server.trainings.provenance import provenance_of_moments

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
    note_seen(participant)
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
            merged, facts = _merged(current)
        except DamagedUpdate as damage:
            logger.error("training %s, moments of round %d: %s", training_id, number, damage)
            lifecycle.reject_moments(current, UUID(damage.update_id), reason=damage.message)
            continue
        fault_point("swag_full.blob_written")
        lifecycle.finish_swag(current, merged, facts=facts)
        fault_point("swag_full.after_commit")


def _merged(current: Round) -> tuple[StoredFile, dict[str, Any]]:
    """The moments of the model, in the storage, and what the manifest says of them."""
    merging, schema = merging_of(current), moments_schema(current.training.model)
    storage = get_storage()
    with storage.draft() as draft:
        report = carry_out(merging, draft, schema=schema, checksums=checksums_of(current))
        merged = described(draft, report.sha256, report.num_bytes)
        storage.adopt(draft, merged.sha256)
    return merged, provenance_of_moments(merging, merged)
