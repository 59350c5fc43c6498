"""Whether what is stored still has the bytes that came in: a part of all files is read in each sweep."""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Iterator
from itertools import chain
from uuid import UUID

from django.db import transaction

from folkmoot.protocol.rounds import ordinal
from folkmoot.server.outbox.events import record
from folkmoot.server.registry.models import Checkpoint, DamagedBlob, Model, Moments, Origin
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings.models import SwagStatistic, Training, Update

logger = logging.getLogger(__name__)

DAMAGED = "blob_damaged"


class Patrol:
    """Goes round all digests in their order, and on from where it was; it begins anywhere."""

    def __init__(self) -> None:
        self._position = f"{random.getrandbits(32):08x}"

    def check(self, max_bytes: int) -> None:
        """Read files of about so many bytes in all, at least one; sound the alarm once for each that is damaged."""
        sizes = _sizes()
        _forget_all_but(sizes)
        digests = sorted(sizes)
        behind = [each for each in digests if each > self._position]
        ahead = [each for each in digests if each <= self._position]
        left = max_bytes
        for sha256 in chain(behind, ahead):
            if left <= 0:
                return
            _check(sha256)
            self._position = sha256
            left -= sizes[sha256]


patrol = Patrol()


def _forget_all_but(kept: Collection[str]) -> None:
    """The damage of a file that no row keeps any longer is nobody's, and nobody could mend it."""
    found = DamagedBlob.objects.values_list("sha256", flat=True)
    DamagedBlob.objects.filter(sha256__in=[each for each in found if each not in kept]).delete()


def _check(sha256: str) -> None:
    if get_storage().is_intact(sha256):
        DamagedBlob.objects.filter(sha256=sha256).delete()
        return
    with transaction.atomic():
        holders = list(_holders(sha256))
        # Nobody's any more: it was removed meanwhile.
        if holders and DamagedBlob.objects.get_or_create(sha256=sha256)[1]:
            for subject, what in holders:
                logger.error("%s: the file %s is damaged, or gone", what, sha256)
                record(subject, DAMAGED, {"what": what, "sha256": sha256})


def _sizes() -> dict[str, int]:
    """Of every file that a row keeps, in bytes; a template counts as its model's first checkpoint."""
    checkpoints = Checkpoint.objects.kept()
    templates = checkpoints.filter(origin=Origin.UPLOAD)
    found = dict.fromkeys(Model.objects.values_list("preprocessing_sha256", flat=True), 0)
    for rows, digest, size in (
        (templates, "model__template_sha256", "num_bytes"),
        (checkpoints, "sha256", "num_bytes"),
        (checkpoints, "state_sha256", "state_num_bytes"),
        (Moments.objects.filter(checkpoint__removed_at=None), "sha256", "num_bytes"),
        (Update.objects.kept(), "sha256", "num_bytes"),
        (SwagStatistic.objects.filter(removed_at=None), "sha256", "num_bytes"),
    ):
        found.update(rows.values_list(digest, size).iterator())
    for beneath in _beneath().values():
        found.update(dict.fromkeys(beneath - found.keys(), 0))
    found.pop("", None)
    return found


def _beneath() -> dict[tuple[UUID, int], set[str]]:
    """By model and round, where a checkpoint lies upon the files of others."""
    layered = Checkpoint.objects.kept().exclude(beneath=[]).values_list("model", "round", "beneath")
    return {(model, number): set(beneath) for model, number, beneath in layered.iterator()}


def _holders(sha256: str) -> Iterator[tuple[UUID, str]]:
    """Whose history the damage belongs to, a training or else a model, and what is damaged."""
    trained = dict(Training.objects.values_list("model", "pk"))
    for update in Update.objects.kept().filter(sha256=sha256).select_related("round"):
        yield update.round.training_id, f"update {update.pk}"
    for statistic in SwagStatistic.objects.filter(removed_at=None, sha256=sha256).select_related("round"):
        number = ordinal(statistic.round.number)
        yield statistic.round.training_id, f"moments of {statistic.participant_id} for checkpoint {number}"
    checkpoints = Checkpoint.objects.kept()
    for rows, what in (
        (checkpoints.filter(sha256=sha256), "checkpoint"),
        (checkpoints.filter(state_sha256=sha256), "state of checkpoint"),
        (checkpoints.filter(moments__sha256=sha256), "moments of checkpoint"),
    ):
        for model, number in rows.values_list("model", "round"):
            yield trained.get(model, model), f"{what} {number} of model {model}"
    for (model, number), beneath in _beneath().items():
        if sha256 in beneath:
            yield trained.get(model, model), f"a file beneath checkpoint {number} of model {model}"
    for column in ("template_sha256", "preprocessing_sha256"):
        for model in Model.objects.filter(**{column: sha256}).values_list("pk", flat=True):
            yield trained.get(model, model), f"{column.removesuffix('_sha256')} of model {model}"
