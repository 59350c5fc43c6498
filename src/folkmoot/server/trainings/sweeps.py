"""What is looked for every few seconds, so that nothing waits for ever on a wake-up that was lost."""

from __future__ import annotations

import logging

from django.conf import settings
from django.utils import timezone

from folkmoot.server.outbox.worker import sweep
from folkmoot.server.registry.models import Checkpoint, Model, Moments
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings import lifecycle
from folkmoot.server.trainings.models import Round, SwagStatistic, Update

logger = logging.getLogger(__name__)


@sweep(every="SWEEP_SECONDS")
def close_overdue_rounds() -> None:
    """Rounds whose deadline has passed."""
    now = timezone.now()
    for late in Round.objects.overdue(now):
        try:
            lifecycle.close_if_overdue(late, now)
        except Exception:  # whatever is wrong with one training, the others' deadlines are to be kept
            logger.exception("the deadline of %s could not be kept", late)


@sweep(every="ORPHAN_GRACE_SECONDS")
def remove_orphaned_blobs() -> None:
    """Blobs that no row points to, once they are too old to belong to an upload under way."""
    storage = get_storage()
    old = storage.older_than(settings.ORPHAN_GRACE_SECONDS)
    if old:
        storage.remove_if_old(old - _referenced(), settings.ORPHAN_GRACE_SECONDS)


def _referenced() -> set[str]:
    columns = (
        (Model, "template_sha256"),
        (Model, "preprocessing_sha256"),
        (Checkpoint, "sha256"),
        (Checkpoint, "state_sha256"),
        (Moments, "sha256"),
        (Update, "sha256"),
        (SwagStatistic, "sha256"),
    )
    digests = {
        digest for model, column in columns for digest in model.objects.values_list(column, flat=True).iterator()
    }
    for beneath in Checkpoint.objects.exclude(beneath=[]).values_list("beneath", flat=True).iterator():
        digests.update(beneath)
    return digests
