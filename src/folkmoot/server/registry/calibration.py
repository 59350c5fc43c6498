"""Calibration statistics of a checkpoint: kept for each participant, and merged."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from django.db.models import Count, Max
from django.utils import timezone

from folkmoot.errors import AlreadySubmitted, InvalidValue
from folkmoot.server.accounts.models import User
from folkmoot.server.registry.models import Calibration, Model
from folkmoot.uncertainty import Statistics, from_json, merged, to_json


class MergedCalibration(NamedTuple):
    """The statistics of all rows together, of which checkpoint, and how many participants have counted them."""

    round: int
    statistics: Statistics
    participants: int


def note_calibration(model: Model, participant: User, *, round: int, statistics: Statistics, may_replace: bool) -> bool:
    """Keep the statistics; return whether they are new.

    Raises AlreadySubmitted where others of this participant may not be replaced, and InvalidValue where the other
    participants have counted for another task.
    """
    sent = model.calibrations.filter(round=round)
    earlier = sent.filter(participant=participant).first()
    if earlier is not None and from_json(earlier.statistics) == statistics:
        return False
    if earlier is not None and not may_replace:
        raise AlreadySubmitted(f"other calibration statistics of yours count in round {round} already")
    task = sent.exclude(participant=participant).values_list("statistics__task", flat=True).first()
    if task not in (None, statistics.TASK):
        raise InvalidValue(f"task: expected {task}, as other participants have sent it, and not {statistics.TASK}")
    noted = {"statistics": to_json(statistics), "received_at": timezone.now()}
    model.calibrations.update_or_create(round=round, participant=participant, defaults=noted)
    return True


def merged_calibration(model: Model, round: int) -> MergedCalibration | None:
    """Of the checkpoint after so many rounds; None where nobody has sent any."""
    sent = model.calibrations.filter(round=round)
    version = sent.aggregate(count=Count("pk"), newest=Max("received_at"))
    return _merged(model.pk, round, **version) if version["count"] else None


@lru_cache(maxsize=32)
def _merged(model_id: UUID, round: int, *, count: int, newest: datetime) -> MergedCalibration | None:
    """Merged once for every state of the rows: predictions ask for it each time."""
    sent = Calibration.objects.filter(model=model_id, round=round).values_list("statistics", flat=True)
    several = [from_json(each) for each in sent]
    return MergedCalibration(round, merged(several), len(several)) if several else None
