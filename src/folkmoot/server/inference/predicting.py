"""A prediction, from what is asked to what is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from folkmoot.errors import InvalidValue, ModelFailed, NotFound
from folkmoot.sandbox import Sampling, Sandbox, SandboxModel
from folkmoot.server.accounts.models import User
from folkmoot.server.inference import members
from folkmoot.server.inference.answers import Answer, answer_of
from folkmoot.server.inference.inputs import Array, Given, read_input
from folkmoot.server.inference.plans import Plan, plan_of
from folkmoot.server.inference.pool import question_to
from folkmoot.server.inference.sets import limit_for, set_of
from folkmoot.server.inference.shapes import Shape, channels_of, check_shape
from folkmoot.server.registry.models import Model
from folkmoot.server.trainings.models import Update
from folkmoot.server.trainings.named_rounds import RoundName, number_of


def predict(
    model: Model | Update, given: Given, *, asked_by: User, round: RoundName = None, coverage: float | None = None
) -> Answer:
    """What the model says, as it was after `round` rounds or is now; with `coverage`, what else may be right.

    Raises InvalidInput, ModelFailed, NotInstalled, Unavailable.
    """
    plan, number = plan_of(model), _number_of(model, round)
    if coverage is None:
        return answer_of(_samples(model, given, plan, number), plan)
    limit = limit_for(model, coverage, round=number, asked_by=asked_by)
    samples = _samples(model, given, plan, number)
    # The promise holds for the model as its participants have counted it, whatever the training's method is.
    once = samples if plan.method == "NONE" else _samples(model, given, replace(plan, method="NONE"), number)
    return replace(answer_of(samples, plan), prediction_set=set_of(once, limit, plan))


def _number_of(model: Model | Update, round: RoundName) -> int | None:
    try:
        return number_of(model, round)
    except NotFound as error:  # of something that the body names
        raise InvalidValue(error.message, code=error.code) from error


def _samples(model: Model | Update, given: Given, plan: Plan, round: int | None) -> Array:
    """Of shape (members, rows, ...)."""
    shape = (model if isinstance(model, Model) else model.base_model).input_shape
    with members.opened(model, plan, round=round) as asked:
        # What a preprocessing module takes is its own affair.
        channels = None if any(each.preprocessing for each in asked) else channels_of(shape)
        with question_to(asked[0].owner) as sandbox:
            meant = read_input(given, channels=channels)
            samples = [_outputs(sandbox, each, meant, shape, plan.sampling) for each in asked]
    return _together(samples)


def _outputs(
    sandbox: Sandbox, model: SandboxModel, meant: Sequence[Array], shape: Shape | None, how: Sampling
) -> Array:
    """Of the first of the arrays that the model takes: only it knows whether whole numbers are indices."""
    first, *others = meant
    try:
        return _asked(sandbox, model, first, shape, how)
    except ModelFailed as error:
        # One of a process that has ended is a subclass: what hung or crashed is not asked again.
        if not others or type(error) is not ModelFailed:
            raise
        try:
            return _outputs(sandbox, model, others, shape, how)
        except ModelFailed:
            raise error from None


def _asked(sandbox: Sandbox, model: SandboxModel, array: Array, shape: Shape | None, how: Sampling) -> Array:
    if model.preprocessing is not None:
        array = sandbox.preprocess(model, array)
    check_shape(array.shape, shape, is_preprocessed=model.preprocessing is not None)
    return sandbox.predict(model, array, how)


def _together(samples: Sequence[Array]) -> Array:
    shapes = {each.shape[1:] for each in samples}
    if len(shapes) > 1:
        raise ModelFailed(f"the members answer with different shapes: {', '.join(map(str, sorted(shapes)))}")
    return np.concatenate(samples)
