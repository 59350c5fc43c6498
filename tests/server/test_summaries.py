"""What many values of one metric come to."""

from __future__ import annotations

import itertools
import math
import uuid

import pytest

from folkmoot.server.trainings.summaries import Reported, is_better_lower, summarize

ONE, OTHER, THIRD = (uuid.UUID(int=number) for number in (1, 2, 3))


def test_values_count_as_much_as_they_have_examples():
    found = summarize([Reported(ONE, 1.0, 3), Reported(OTHER, 5.0, 1)], lower_is_better=False)

    assert (found.mean, found.count, found.num_examples) == (2.0, 2, 4)
    assert found.std == pytest.approx(math.sqrt((3 * 1 + 1 * 9) / 4))
    assert (found.minimum, found.maximum) == (1.0, 5.0)


@pytest.mark.parametrize(("lower_is_better", "worst"), [(True, OTHER), (False, ONE)])
def test_the_worst_is_at_the_bad_end(lower_is_better, worst):
    found = summarize([Reported(ONE, 1.0, 3), Reported(OTHER, 5.0, 1)], lower_is_better=lower_is_better)

    assert found.worst == worst


def test_what_is_not_finite_or_of_no_examples_is_left_out_and_counted():
    reports = [Reported(ONE, None, 5), Reported(OTHER, 7.0, 0), Reported(THIRD, 2.0, 1)]

    found = summarize(reports, lower_is_better=True)

    assert (found.mean, found.count, found.num_left_out, found.worst) == (2.0, 1, 2, THIRD)


def test_of_no_values_there_is_no_mean():
    found = summarize([Reported(ONE, None, 5)], lower_is_better=True)

    assert (found.mean, found.std, found.count, found.num_left_out, found.worst) == (None, None, 0, 1, None)


def test_any_order_gives_the_same_bits():
    reports = [Reported(ONE, 0.1, 3), Reported(OTHER, 0.2, 7), Reported(THIRD, 0.7, 11)]

    assert len({summarize(each, lower_is_better=True) for each in itertools.permutations(reports)}) == 1


@pytest.mark.parametrize("values", [(1.7e308, -1.7e308), (1.7e308, 1.7e308), (5e-324, 0.0), (0.0, 0.0)])
def test_extreme_values_have_a_finite_mean_and_spread(values):
    found = summarize([Reported(ONE, values[0], 1), Reported(OTHER, values[1], 10**9)], lower_is_better=True)

    assert math.isfinite(found.mean)
    assert math.isfinite(found.std)
    assert min(values) <= found.mean <= max(values)


@pytest.mark.parametrize(
    "name",
    [
        "loss",
        "val_loss",
        "trainLoss",
        "RMSE",
        "test/mae",
        "perplexity",
        "crossentropy",
        "top1-error",
        "MeanSquaredError",
    ],
)
def test_losses_and_errors_are_better_lower(name):
    assert is_better_lower(name)


@pytest.mark.parametrize("name", ["accuracy", "auc", "f1", "dice", "R2", "glossary_score", "r", "recall@5", "42"])
def test_other_metrics_are_better_higher(name):
    assert not is_better_lower(name)
