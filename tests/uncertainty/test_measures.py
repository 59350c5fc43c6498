"""Entropies and variances, against what can be integrated by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from folkmoot.errors import InvalidValue, NonFinite
from folkmoot.uncertainty import Ending, measure

MILLION = 1_000_000
LOGITS = arrays.arrays(
    np.float64, arrays.array_shapes(min_dims=3, max_dims=4, min_side=2, max_side=5), elements=st.floats(-800, 800)
)


def entropy(likely: np.ndarray) -> np.ndarray:
    return -(likely * np.log(likely)).sum(axis=-1)


def test_a_million_members_with_any_probability_agree_with_the_integral() -> None:
    yes = np.random.default_rng(1).uniform(size=(MILLION, 1, 1))
    of = measure(np.concatenate([yes, 1 - yes], axis=-1))
    assert of.mean[0] == pytest.approx([0.5, 0.5], abs=2e-3)
    assert of.variance[0] == pytest.approx([1 / 12, 1 / 12], abs=1e-3)
    assert of.predictive_entropy == pytest.approx([math.log(2)], abs=1e-4)
    assert of.expected_entropy == pytest.approx([1 / 2], abs=1e-3)
    assert of.mutual_info == pytest.approx([math.log(2) - 1 / 2], abs=1e-3)


def test_a_million_members_of_a_dirichlet_distribution_agree_with_its_moments() -> None:
    of = measure(np.random.default_rng(2).dirichlet([1, 1, 1], size=(MILLION, 1)))
    assert of.std[0] == pytest.approx([math.sqrt(1 / 18)] * 3, abs=1e-3)
    assert of.predictive_entropy == pytest.approx([math.log(3)], abs=1e-4)
    assert of.expected_entropy == pytest.approx([1 / 2 + 1 / 3], abs=1e-3)


def test_a_million_members_with_normal_logits_agree_with_a_quadrature() -> None:
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    likely = 1 / (1 + np.exp(-(1 + 2 * points)))
    likely, weights = np.stack([likely, 1 - likely], axis=-1), weights / weights.sum()
    total, expected = entropy(weights @ likely), weights @ entropy(likely)

    logits = np.random.default_rng(3).normal(1, 2, size=(MILLION, 1, 1))
    of = measure(np.concatenate([logits, np.zeros_like(logits)], axis=-1))

    assert of.predictive_entropy == pytest.approx([total], abs=1e-3)
    assert of.expected_entropy == pytest.approx([expected], abs=1e-3)
    assert of.mutual_info == pytest.approx([total - expected], abs=2e-3)


def test_members_that_are_sure_of_different_things_are_exactly_undecided() -> None:
    of = measure([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert of.mean.tolist() == [[0.5, 0.5]]
    assert of.variance.tolist() == [[0.5, 0.5]]
    assert (of.predictive_entropy, of.expected_entropy, of.mutual_info) == (math.log(2), 0, math.log(2))


def test_members_that_are_sure_of_the_same_have_no_uncertainty() -> None:
    of = measure([[[1.0, 0.0]], [[1.0, 0.0]]])
    assert (of.predictive_entropy, of.expected_entropy, of.mutual_info) == (0, 0, 0)


@given(LOGITS, st.integers(1, 7))
def test_equal_members_have_no_mutual_information_and_no_variance_at_all(logits: np.ndarray, members: int) -> None:
    of = measure(np.stack([logits[0]] * members), Ending.LOGITS)
    assert not of.mutual_info.any()
    assert not of.variance.any()
    np.testing.assert_array_equal(of.predictive_entropy, of.expected_entropy)


def test_rounding_makes_no_negative_mutual_information() -> None:
    yes = np.arange(1, 99) / 100
    almost = np.stack([yes, yes + 1e-10])
    assert (measure(np.stack([almost, 1 - almost], axis=-1)).mutual_info >= 0).all()


@given(LOGITS)
def test_entropies_keep_within_their_bounds(logits: np.ndarray) -> None:
    of = measure(logits, Ending.LOGITS)
    assert (of.mutual_info >= 0).all()
    assert (of.mutual_info <= of.predictive_entropy).all()
    assert (of.expected_entropy >= 0).all()
    assert (of.predictive_entropy <= math.log(logits.shape[2])).all()
    assert of.mutual_info.shape == logits.shape[1:2] + logits.shape[3:]


def test_values_have_a_mean_and_a_spread_and_no_entropy() -> None:
    of = measure([[[1.0, 10.0]], [[2.0, 10.0]], [[6.0, 10.0]]], Ending.VALUES)
    assert of.mean.tolist() == [[3, 10]]
    assert of.variance.tolist() == [[7, 0]]
    assert of.std.tolist() == [[math.sqrt(7), 0]]
    assert of.predictive_entropy is of.expected_entropy is of.mutual_info is None


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1)])
def test_a_single_output_is_a_value(shape: tuple[int, ...]) -> None:
    of = measure(np.ones(shape))
    assert of.mean.shape == of.std.shape == shape[1:]
    assert of.mutual_info is None


def test_a_single_member_has_no_variance() -> None:
    of = measure([[[0.3, 0.7]]])
    assert of.variance.tolist() == [[0, 0]]
    assert of.mutual_info.tolist() == [0]


def test_what_would_overflow_in_float16_does_not() -> None:
    of = measure(np.array([[60_000], [0]], dtype=np.float16))
    assert (of.mean, of.std) == (30_000, pytest.approx(math.sqrt(2) * 30_000))


def test_what_is_no_sample_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"\(3,\)"):
        measure([1.0, 2.0, 3.0])
    with pytest.raises(InvalidValue, match=r"\(0, 2\)"):
        measure(np.ones((0, 2)))
    with pytest.raises(InvalidValue, match="classes"):
        measure(np.ones((3, 2)), Ending.LOGITS)
    with pytest.raises(NonFinite):
        measure([[1.0, np.nan]])
