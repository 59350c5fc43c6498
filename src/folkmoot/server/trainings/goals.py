"""By which metric a training's checkpoints are compared: which is the best, and whether to stop early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from folkmoot.errors import NotFound
from folkmoot.protocol.rounds import ordinal
from folkmoot.protocol.states import RoundState
from folkmoot.server.registry.models import Model, Phase
from folkmoot.server.trainings.models import RoundMetric, Training
from folkmoot.server.trainings.summaries import is_better_lower


@dataclass(frozen=True)
class Tested:
    """A round whose model was to be tested, and the mean of the metric then; None where nobody reported it."""

    number: int
    value: float | None


def reason_to_stop(training: Training) -> str:
    """A sentence once the goal of `stop_when` is reached or its patience at an end; empty while all goes on."""
    wanted = training.settings.stop_when
    if not wanted:
        return ""
    metric, goal, patience = wanted["metric"], wanted.get("goal"), wanted.get("patience")
    lower = prefers_lower(training, metric)
    history = _history(training, metric)
    last = history[-1]
    beginning = f"Stopped early after round {ordinal(last.number)}: {metric}"
    if goal is not None and last.value is not None and _is_reached(last.value, goal, lower=lower):
        return f"{beginning} {last.value:.6g} has reached the goal of {goal:.6g}."
    if patience is None or _rounds_without_improvement(history, wanted.get("min_delta", 0.0), lower=lower) < patience:
        return ""
    best = _best(history, lower=lower)
    if best is None:
        return f"{beginning} was reported in none of {len(history)} rounds."
    since = f"has not improved for {patience} rounds; best was round {ordinal(best.number)}"
    return f"{beginning} {best.value:.6g} {since}."


def best_checkpoint(model: Model) -> int:
    """After how many rounds the model was best in its tests; of several that are alike, the first.

    By the metric of `stop_when`; else the one name in the training's `metric_names`; else the only one that was
    tested; else `loss`. Raises NotFound where none of these says which.
    """
    nowhere = f"Model {model.pk} has no best checkpoint"
    training = Training.objects.filter(model=model).first()
    if training is None:
        raise NotFound(f"{nowhere}: no training tests it.")
    tests = RoundMetric.objects.filter(round__training=training, phase=Phase.TEST, mean__isnull=False)
    tested = sorted(set(tests.values_list("name", flat=True)))
    if not tested:
        raise NotFound(f"{nowhere}: no test of it has come to a number yet.")
    metric = _deciding(training, tested)
    if metric is None:
        raise NotFound(f"{nowhere} for certain: {', '.join(tested)} were tested; name one in options.stop_when.")
    best = _best(_history(training, metric), lower=prefers_lower(training, metric))
    if best is None:
        raise NotFound(f"{nowhere}: {metric} was not reported in any test yet.")
    return best.number + 1


def prefers_lower(training: Training, metric: str) -> bool:
    """What `stop_when.mode` says of its metric; else what the name says."""
    stop_when = training.settings.stop_when
    is_judged = metric == stop_when.get("metric") and "mode" in stop_when
    return stop_when["mode"] == "min" if is_judged else is_better_lower(metric)


def _deciding(training: Training, tested: Sequence[str]) -> str | None:
    if training.settings.stop_when:
        return str(training.settings.stop_when["metric"])
    candidates = (training.metric_names, tested, ["loss"] if "loss" in tested else [])
    return next((str(names[0]) for names in candidates if len(names) == 1), None)


def _history(training: Training, metric: str) -> list[Tested]:
    """The closed rounds that made a model, the oldest first."""
    closed = training.rounds.filter(state=RoundState.CLOSED, aggregated_at__isnull=False)
    of_metric = RoundMetric.objects.filter(round__in=closed, phase=Phase.TEST, name=metric)
    means = dict(of_metric.values_list("round__number", "mean"))
    return [Tested(number, means.get(number)) for number in closed.order_by("number").values_list("number", flat=True)]


def _best(history: Sequence[Tested], *, lower: bool) -> Tested | None:
    values = [(-each.value if lower else each.value, -each.number, each) for each in history if each.value is not None]
    return max(values, key=lambda each: each[:2])[2] if values else None


def _rounds_without_improvement(history: Sequence[Tested], min_delta: float, *, lower: bool) -> int:
    """Since the last value that was better, by more than `min_delta`, than the last one that was."""
    best, since = None, 0
    for each in history:
        gain = None if each.value is None or best is None else (best - each.value if lower else each.value - best)
        if each.value is not None and (gain is None or gain > min_delta):
            best, since = each.value, 0
        else:
            since += 1
    return since


def _is_reached(value: float, goal: float, *, lower: bool) -> bool:
    return value <= goal if lower else value >= goal
