"""What the database knows, as Prometheus' figures: the same from whichever process it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from django.db.models import Avg, Count, F, Min, QuerySet, Sum
from django.utils import timezone
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from folkmoot.protocol.states import RoundState, TrainingState, UpdateStatus
from folkmoot.server.notifications.models import Notification
from folkmoot.server.outbox.models import Event, Lane
from folkmoot.server.registry.models import DamagedBlob
from folkmoot.server.trainings.models import Round, Training, Update

COLLECTING = (RoundState.OPEN, RoundState.SWAG, RoundState.TESTING)


class Figures(Collector):
    """Reads them anew each time that it is asked; few, and each one query."""

    def collect(self) -> Iterator[Metric]:
        yield _by("folkmoot_trainings", "Trainings.", "state", TrainingState, _count(Training.objects, "state"))
        yield _by("folkmoot_rounds", "Rounds.", "state", RoundState, _count(Round.objects, "state"))
        yield _by("folkmoot_updates", "Updates.", "status", UpdateStatus, _count(Update.objects, "status"))
        yield from _of_updates()
        yield from _of_rounds()
        yield from _of_the_queue()
        damaged = DamagedBlob.objects.count()
        yield GaugeMetricFamily("folkmoot_damaged_files", "Stored files found damaged, or gone.", damaged)
        unanswered = Notification.objects.filter(settled=False).count()
        yield GaugeMetricFamily("folkmoot_notifications_open", "Requests for work without an answer.", unanswered)

    def describe(self) -> Iterable[Metric]:
        """Nothing: Prometheus' client would read the database as soon as this is registered."""
        return ()


def _of_updates() -> Iterator[Metric]:
    total = Update.objects.aggregate(Sum("received_bytes"))["received_bytes__sum"] or 0
    yield CounterMetricFamily("folkmoot_update_bytes", "Bytes of all updates, as they were received.", total)


def _of_rounds() -> Iterator[Metric]:
    done = Round.objects.filter(aggregated_at__isnull=False)
    facts = done.aggregate(Count("pk"), mean=Avg(F("aggregated_at") - F("opened_at")))
    count = facts["pk__count"]
    seconds = facts["mean"].total_seconds() * count if count else 0.0
    text = "Rounds whose model was made, and the time from their opening until then."
    yield SummaryMetricFamily("folkmoot_round_seconds", text, count_value=count, sum_value=seconds)
    waiting = Round.objects.filter(state__in=COLLECTING).aggregate(Min("opened_at"))["opened_at__min"]
    text = "How long ago the oldest round was opened that waits for participants."
    yield GaugeMetricFamily("folkmoot_round_wait_seconds", text, _age(waiting))


def _of_the_queue() -> Iterator[Metric]:
    waiting = Event.objects.unhandled()
    yield _by("folkmoot_events_waiting", "Events not handled yet.", "lane", Lane, _count(waiting, "lane"))
    failed = waiting.exclude(error="")
    yield _by("folkmoot_events_failing", "Of them, those tried in vain.", "lane", Lane, _count(failed, "lane"))
    oldest = waiting.aggregate(Min("created_at"))["created_at__min"]
    yield GaugeMetricFamily("folkmoot_event_wait_seconds", "Age of the oldest event not handled yet.", _age(oldest))


def _count(rows: Any, field: str) -> QuerySet[Any, Any]:
    return rows.order_by().values_list(field).annotate(Count("pk"))


def _by(name: str, text: str, label: str, kinds: Any, found: Iterable[tuple[str, int]]) -> GaugeMetricFamily:
    """A figure for every kind: one that there is none of is 0, and not missing."""
    family = GaugeMetricFamily(name, text, labels=[label])
    counted: Mapping[str, int] = dict(found)
    for kind in kinds:
        family.add_metric([str(kind.name).lower()], counted.get(kind.value, 0))
    return family


def _age(since: datetime | None) -> float:
    return max(0.0, (timezone.now() - since).total_seconds()) if since else 0.0
