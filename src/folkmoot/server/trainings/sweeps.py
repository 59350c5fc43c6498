"""What is looked for every few seconds, so that nothing waits for ever on a wake-up that was lost."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.db.models import Q

from folkmoot.protocol.states import RoundState
from folkmoot.server import clock
from folkmoot.server.outbox.worker import sweep
from folkmoot.server.registry.models import Checkpoint, Model, Moments
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings import lifecycle, sharding
from folkmoot.server.trainings.integrity import patrol
from folkmoot.server.trainings.models import Round, SwagStatistic, Training, Update
from folkmoot.server.trainings.retention import mark_removed

logger = logging.getLogger(__name__)

LEFTOVER_SECONDS = 24 * 3600


@sweep(every="SWEEP_SECONDS")
def close_overdue_rounds() -> None:
    """Rounds whose deadline has passed."""
    now = clock.now()
    for late in Round.objects.overdue(now):
        try:
            lifecycle.close_if_overdue(late, now)
        except Exception:  # whatever is wrong with one training, the others' deadlines are to be kept
            logger.exception("the deadline of %s could not be kept", late)


@sweep(every="SWEEP_SECONDS")
def open_rounds_that_wait() -> None:
    """Rounds for which enough participants have come online."""
    now = clock.now()
    for waiting in Round.objects.filter(state=RoundState.WAITING):
        try:
            lifecycle.open_if_available(waiting, now)
        except Exception:  # as above
            logger.exception("%s could not be opened", waiting)


@sweep(every="ORPHAN_GRACE_SECONDS")
def mark_what_is_not_kept() -> None:
    """Files that the trainings' options do not have kept any longer."""
    now = clock.now()
    for training in Training.objects.values_list("pk", flat=True):
        try:
            mark_removed(training, now)
        except Exception:  # as above
            logger.exception("what training %s does not keep could not be marked", training)


@sweep(every="ORPHAN_GRACE_SECONDS")
def check_what_is_kept() -> None:
    """Bytes that have changed in the storage, a part of all files at a time."""
    patrol.check(settings.CHECK_BYTES)


@sweep(every="ORPHAN_GRACE_SECONDS")
def remove_orphaned_blobs() -> None:
    """Blobs that no row points to, once they are too old to belong to an upload under way."""
    get_storage().remove_orphans(older_than=settings.ORPHAN_GRACE_SECONDS, needed=referenced)


@sweep(every="ORPHAN_GRACE_SECONDS", on_each_machine=True)
def remove_leftovers() -> None:
    """Files on their way in whose process has gone; those of one that works are never left alone for so long."""
    get_storage().remove_leftovers(older_than=max(settings.ORPHAN_GRACE_SECONDS, LEFTOVER_SECONDS))


@sweep(every="ORPHAN_GRACE_SECONDS")
def remove_abandoned_shards() -> None:
    """What workers made of a model that nobody finishes, or that is finished."""
    if assembly := get_storage().assembly:
        assembly.remove_orphans(older_than=settings.ORPHAN_GRACE_SECONDS, needed=sharding.needed_keys)


def referenced() -> set[str]:
    """What rows point to, and what some did until lately: whoever read such a row then may be writing another one."""
    lately = clock.now() - timedelta(seconds=settings.ORPHAN_GRACE_SECONDS)
    is_kept = Q(removed_at=None) | Q(removed_at__gt=lately)
    checkpoints = Checkpoint.objects.filter(is_kept)
    columns = (
        (Model.objects.all(), "template_sha256"),
        (Model.objects.all(), "preprocessing_sha256"),
        (checkpoints, "sha256"),
        (checkpoints, "state_sha256"),
        (Moments.objects.filter(checkpoint__in=checkpoints), "sha256"),
        (Update.objects.filter(is_kept), "sha256"),
        (SwagStatistic.objects.filter(is_kept), "sha256"),
    )
    digests = {digest for rows, column in columns for digest in rows.values_list(column, flat=True).iterator()}
    for beneath in checkpoints.exclude(beneath=[]).values_list("beneath", flat=True).iterator():
        digests.update(beneath)
    return digests - {""}
