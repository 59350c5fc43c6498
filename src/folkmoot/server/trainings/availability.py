"""How many of a training's participants are online, and whether that is enough for a round to open."""

from __future__ import annotations

from datetime import datetime

from django.db.models import QuerySet

from folkmoot.server.accounts.models import User
from folkmoot.server.notifications.presence import online
from folkmoot.server.trainings.models import Training


def lacks(training: Training, now: datetime) -> int:
    """How many more must come online before the next round opens; 0 where `options.min_available` asks for nobody."""
    wanted = training.settings.min_available
    if wanted is None:
        return 0
    return max(0, wanted - online(training.participants.values_list("pk", flat=True), now).count())


def absent(training: Training, now: datetime) -> QuerySet[User]:
    """The participants that are not online, by name."""
    there = online(training.participants.values_list("pk", flat=True), now)
    return training.participants.exclude(pk__in=there.values("pk")).order_by("username")
