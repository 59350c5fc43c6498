"""The metrics of a round as its participants reported them, summed up as it closes and kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from uuid import UUID

from django.conf import settings
from django.db.models import OuterRef, Q, QuerySet, Subquery

from folkmoot.protocol.states import UpdateStatus
from folkmoot.server.accounts.models import User
from folkmoot.server.registry.models import Metric, Phase
from folkmoot.server.trainings.goals import prefers_lower
from folkmoot.server.trainings.models import Round, RoundMetric, Training, Update
from folkmoot.server.trainings.summaries import Reported, summarize

NUM_EXAMPLES = "num_examples"
"""Sent with a test's answer, this is no metric but the weight of the others: how many examples were tested."""

Reports = Mapping[str, list[Reported]]


def note_round_metrics(training: Training, current: Round) -> None:
    """Sum up what came with the round's updates, and what its test was answered; in the transaction that closes it.

    An update that was rejected or quarantined has no say.
    """
    rows = []
    for phase, reports in ((Phase.TRAIN, _of_updates(current)), (Phase.TEST, _of_test(training, current))):
        for name, reported in reports.items():
            summary = asdict(summarize(reported, lower_is_better=prefers_lower(training, name)))
            worst = summary.pop("worst")
            rows.append(RoundMetric(round=current, phase=phase, name=name, worst_id=worst, **summary))
    RoundMetric.objects.bulk_create(rows, batch_size=500)


def _of_updates(current: Round) -> Reports:
    """By the name of the metric, from those whose updates count in this round."""
    of_round = Q(counted_in=current) | Q(round=current, status=UpdateStatus.PASSED_ON)
    updates = Update.objects.filter(of_round).exclude(status__in=(UpdateStatus.REJECTED, UpdateStatus.QUARANTINED))
    examples = {
        (participant, number): num_examples
        for participant, number, num_examples in updates.values_list("participant", "round__number", "num_examples")
    }
    sent = current.training.model.metrics.filter(phase=Phase.TRAIN, step__in={number for _, number in examples})
    found: dict[str, list[Reported]] = defaultdict(list)
    for (participant, step), values in _last_values(sent).items():
        if (participant, step) in examples:
            for name, value in values.items():
                found[name].append(Reported(participant, value, examples[participant, step]))
    return found


def _of_test(training: Training, current: Round) -> Reports:
    answers = _last_values(training.model.metrics.filter(phase=Phase.TEST, step=current.number + 1))
    if not answers:
        return {}
    found: dict[str, list[Reported]] = defaultdict(list)
    weights = _examples_of(current, {participant for participant, _ in answers})
    for (participant, _), values in answers.items():
        weight = _tested_examples(values.pop(NUM_EXAMPLES, None), weights[participant])
        for name, value in values.items():
            found[name].append(Reported(participant, value, weight))
    return found


def _tested_examples(reported: float | None, otherwise: int) -> int:
    is_number = reported is not None and 0 <= reported <= settings.MAX_NUM_EXAMPLES
    return int(reported) if is_number and reported is not None else otherwise


def _last_values(metrics: QuerySet[Metric]) -> dict[tuple[UUID, int], dict[str, float | None]]:
    """By reporter and step; the last where a name came several times."""
    found: dict[tuple[UUID, int], dict[str, float | None]] = defaultdict(dict)
    numbers = metrics.filter(value_binary=None).order_by("id")
    for reporter, step, name, value in numbers.values_list("reporter", "step", "key", "value_float"):
        found[reporter, step][name] = value
    return found


def _examples_of(current: Round, participants: Collection[UUID]) -> dict[UUID, int]:
    """How many examples each has trained on: in this round, else when it last did, else 1."""
    sent = current.updates.standing().filter(participant__in=participants)
    known = dict(sent.values_list("participant", "num_examples"))
    return {**dict(_last_known(current, set(participants) - known.keys())), **known}


def _last_known(current: Round, participants: Collection[UUID]) -> Iterator[tuple[UUID, int]]:
    earlier = Update.objects.standing().filter(
        participant=OuterRef("pk"), round__training=current.training_id, round__number__lte=current.number
    )
    last = Subquery(earlier.order_by("-round__number").values("num_examples")[:1])
    for participant, num_examples in User.objects.filter(pk__in=participants).values_list("pk", last):
        yield participant, num_examples or 1
