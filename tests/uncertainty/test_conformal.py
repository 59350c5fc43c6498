"""Prediction sets and intervals hold the truth as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression, Ridge

from folkmoot.errors import InvalidValue
from folkmoot.uncertainty import (
    ClassStatistics,
    RegressionStatistics,
    merged,
    prediction_interval,
    prediction_set,
    threshold,
)

SPLITS = range(20)


def residuals(*values: float) -> RegressionStatistics:
    return RegressionStatistics.of(values, np.zeros(len(values)))


def test_the_threshold_is_the_upper_edge_of_the_right_scores_bin() -> None:
    # Of nine scores, 90 % coverage takes the ninth; 50 % the fifth.
    likely = np.array([0.9, 0.8, 0.7, 0.6, 0.5505, 0.4, 0.3, 0.2, 0.1005])
    statistics = ClassStatistics.of(np.stack([likely, 1 - likely], axis=1), np.zeros(9, dtype=int))
    assert threshold(statistics, 0.9) == 0.9
    assert threshold(statistics, 0.5) == 0.45


@pytest.mark.parametrize("right", [0.3, 1e-3, 1e-7, 1e-11])
def test_the_threshold_of_a_model_that_is_too_sure_does_not_admit_everything(right: float) -> None:
    statistics = ClassStatistics.of([[right, 1 - right]] * 9, [0] * 9)
    assert 0.94 * right <= 1 - threshold(statistics, 0.9) <= right * 1.0001


@given(st.lists(st.floats(1e-5, 1e5), min_size=1, max_size=60), st.sampled_from([0.1, 0.5, 0.7, 0.8, 0.9, 0.95]))
def test_the_threshold_is_never_under_the_score_that_it_stands_for_and_hardly_above(
    scores: list[float], coverage: float
) -> None:
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    if rank > len(scores):
        with pytest.raises(InvalidValue, match="scores or more"):
            threshold(residuals(*scores), coverage)
    else:
        exactly = sorted(scores)[rank - 1]
        assert exactly <= threshold(residuals(*scores), coverage) <= exactly * 1.03


@pytest.mark.parametrize(
    ("coverage", "participants", "needed"), [(0.9, 1, 9), (0.95, 1, 19), (0.7, 1, 3), (0.9, 3, 27)]
)
def test_too_few_scores_are_told_how_many_it_takes(coverage: float, participants: int, needed: int) -> None:
    with pytest.raises(InvalidValue, match=f"takes {needed} scores or more; there are {needed - 1}"):
        threshold(residuals(*range(1, needed)), coverage, participants=participants)
    assert threshold(residuals(*range(1, needed + 1)), coverage, participants=participants) >= needed


def test_participants_that_may_differ_make_the_promise_dearer() -> None:
    statistics = residuals(*range(1, 101))
    # The 91st of 100 scores for one participant, the 99th for ten.
    assert 91 <= threshold(statistics, 0.9) < 94
    assert 99 <= threshold(statistics, 0.9, participants=10) < 102
    with pytest.raises(InvalidValue, match="participants is 0"):
        threshold(statistics, 0.9, participants=0)


def test_residuals_beyond_the_last_bin_are_no_interval() -> None:
    with pytest.raises(InvalidValue, match="scale targets"):
        threshold(residuals(*[1e7] * 20), 0.9)


@pytest.mark.parametrize("coverage", [0, 1, -0.1, 90, math.nan])
def test_a_coverage_is_a_part(coverage: float) -> None:
    with pytest.raises(InvalidValue, match="coverage"):
        threshold(residuals(1.0), coverage)


def test_a_set_holds_what_is_likely_enough() -> None:
    likely = [[0.75, 0.25, 0.0], [0.5, 0.25, 0.25], [0.4, 0.35, 0.25]]
    assert prediction_set(likely, 0.5).tolist() == [[True, False, False], [True, False, False], [False] * 3]
    assert prediction_set(likely, 0.75).tolist() == [[True, True, False], [True] * 3, [True] * 3]


def test_sets_of_the_digits_hold_the_truth_in_nine_of_ten_cases() -> None:
    images, labels = load_digits(return_X_y=True)
    covered, sizes = [], []
    for seed in SPLITS:
        train, *participants, test = np.split(
            np.random.default_rng(seed).permutation(len(labels)), [500, 600, 900, 1200]
        )
        model = LogisticRegression(C=0.01, max_iter=300).fit(images[train] / 16, labels[train])
        likely = model.predict_proba(images / 16)
        limit = threshold(merged([ClassStatistics.of(likely[rows], labels[rows]) for rows in participants]), 0.9)
        sets = prediction_set(likely[test], limit)
        covered.append(sets[np.arange(len(test)), labels[test]].mean())
        sizes.append(sets.sum(axis=1).mean())
    assert 0.88 <= np.mean(covered) <= 0.93
    assert np.mean(sizes) < 2


def test_intervals_of_a_regression_hold_the_truth_in_nine_of_ten_cases() -> None:
    features, targets = load_diabetes(return_X_y=True)
    covered = []
    for seed in SPLITS:
        train, first, second, test = np.split(np.random.default_rng(seed).permutation(len(targets)), [142, 192, 292])
        predictions = Ridge(alpha=0.1).fit(features[train], targets[train]).predict(features)
        counted = [RegressionStatistics.of(predictions[rows], targets[rows]) for rows in (first, second)]
        lower, upper = prediction_interval(predictions[test], threshold(merged(counted), 0.9))
        covered.append(((lower <= targets[test]) & (targets[test] <= upper)).mean())
    assert 0.88 <= np.mean(covered) <= 0.93
