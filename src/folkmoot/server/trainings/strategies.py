"""The strategy of a training: which one it is, how many updates it needs, what an update consists of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from folkmoot.aggregation import Buffer, Strategy, find_strategy, layout_of
from folkmoot.errors import InvalidValue, NotInstalled
from folkmoot.server.registry.services import Metrics
from folkmoot.server.trainings.cohorts import check_selection
from folkmoot.server.trainings.models import Training
from folkmoot.server.trainings.options import Options
from folkmoot.tensors.schema import Schema, is_float


def strategy_of(training: Training, *, scored: bool = True) -> Strategy:
    """With scores of each update where `scored`, unless the training's options say whether there are to be any."""
    return _find(training.aggregation_method, training.settings, scored=scored)


def options_of_strategy(training: Training, *, scored: bool = True) -> dict[str, Any]:
    """What the training's strategy is made of, its defaults left out."""
    return _with_scores(training.settings, scored)


def needed_updates(training: Training) -> int:
    """Fewer cannot be aggregated."""
    strategy = _if_installed(training)
    return max(strategy.min_updates, 1) if strategy else 1


def buffer_of(training: Training) -> Buffer | None:
    """None of a synchronous training, in which an update counts in its own round or not at all."""
    strategy = _if_installed(training)
    return strategy.buffer if strategy else None


def check_metrics(training: Training, metrics: Metrics) -> None:
    """Raises InvalidValue, naming it, for a number that the strategy needs of every update and that has not come."""
    strategy = _if_installed(training)
    came = {name for name, value in metrics if isinstance(value, float) and math.isfinite(value)}
    for name in strategy.needs_metrics if strategy else ():
        if name not in came:
            raise InvalidValue(
                f"{training.aggregation_method} needs the metric {name!r} of every update, a finite number"
            )


def _if_installed(training: Training) -> Strategy | None:
    """None of one that is no longer there: the aggregation will say so, and nothing before it may hang on it."""
    try:
        return strategy_of(training)
    except (InvalidValue, NotInstalled):
        return None


def tested(training: Training) -> str:
    """Which models are tested: that of every round, the final one, or none.

    Where participants do not go in step, a test of every round would have all wait for the slowest.
    """
    return _tested(training.settings, buffer_of(training))


def _tested(options: Options, buffer: Buffer | None) -> str:
    go_in_step = not options.daisy_chain_period and buffer is None
    return options.tests or ("every_round" if go_in_step else "final")


def update_schema(training: Training, travelling: Schema) -> Schema:
    """The tensors of an update: those of the model that travel, and what the strategy has travel beside them."""
    return _update_schema(strategy_of(training), travelling)


def known_beside(training: Training, model: Schema) -> Schema:
    """All that an update may bring: what is not needed of it is left out, as are tensors that do not travel."""
    control = strategy_of(training).control_variate
    if control is None:
        return model
    own = {spec.name for spec in model}
    beside = [replace(spec, name=f"{control.name}/{spec.name}") for spec in model if is_float(spec.numpy_dtype)]
    return Schema([*model, *(spec for spec in beside if spec.name not in own)])


def check_plan(aggregation_method: str, given: Mapping[str, Any]) -> None:
    """Raise InvalidValue for options of a training that its strategy does not have, or cannot work with."""
    options = Options.of(given)
    strategy = _find(aggregation_method, options)
    asked = {"options.min_updates": options.min_updates}
    if strategy.buffer:
        asked["options.aggregation.buffer_size"] = strategy.buffer.size
    for name, number in asked.items():
        if number is not None and number < strategy.min_updates:
            raise InvalidValue(f"{name} is {number}, and {aggregation_method} needs at least {strategy.min_updates}")
    if strategy.buffer and (options.min_updates or 1) > strategy.buffer.size:
        raise InvalidValue(f"options.min_updates is {options.min_updates}, and the buffer holds {strategy.buffer.size}")
    check_selection(aggregation_method, options, strategy)
    if options.stop_when and (tests := _tested(options, strategy.buffer)) != "every_round":
        sentence = f"options.stop_when looks at the test of every round, and options.tests is {tests}"
        raise InvalidValue(f"{sentence}: set it to every_round")
    if strategy.buffer and options.daisy_chain_period:
        raise InvalidValue(f"options.daisy_chain_period does not go with {aggregation_method}: nobody goes in step")
    for name in ("encoding", "daisy_chain_period"):
        if strategy.control_variate and getattr(options, name):
            sentence = f"options.{name} does not go with {aggregation_method}, whose control variates travel too"
            raise InvalidValue(sentence)


def check_names(aggregation_method: str, options: Options, travelling: Schema) -> None:
    """Raise InvalidValue where what the strategy has travel would have the names of the model's own tensors."""
    _update_schema(_find(aggregation_method, options), travelling)


def _update_schema(strategy: Strategy, travelling: Schema) -> Schema:
    # Only control variates make a difference, and the layout of a model of many tensors takes its time.
    return layout_of(strategy, travelling).update if strategy.control_variate else travelling


def _find(aggregation_method: str, options: Options, *, scored: bool = True) -> Strategy:
    return find_strategy(aggregation_method, _with_scores(options, scored))


def _with_scores(options: Options, scored: bool) -> dict[str, Any]:
    return {"scores": scored, **options.aggregation}
