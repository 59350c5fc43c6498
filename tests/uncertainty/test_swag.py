"""Members drawn from moments, of a Bayesian linear regression whose posterior is known."""

from __future__ import annotations

import numpy as np
import pytest

from folkmoot.errors import InvalidValue, NonFinite
from folkmoot.uncertainty import Ending, measure, swag

MEAN, DEVIATIONS = np.array([1.0, -2.0]), np.array([0.1, 0.3])
MOMENTS = MEAN, MEAN**2 + DEVIATIONS**2


def moments(parameters: np.ndarray) -> np.ndarray:
    return np.stack([parameters.mean(axis=0), (parameters**2).mean(axis=0)])


def test_the_deviation_is_that_of_the_moments() -> None:
    assert swag.deviation(*MOMENTS) == pytest.approx(DEVIATIONS)


def test_a_variance_that_rounding_made_negative_is_none() -> None:
    assert swag.deviation([1.0, 2.0], [0.999999, 4.0]).tolist() == [0, 0]


def test_moments_of_participants_merge_to_those_of_all_their_models() -> None:
    models = np.random.default_rng(0).normal(size=(40, 3))
    parts = np.split(models, [5, 12])
    merged = sum(moments(part) * len(part) for part in parts) / len(models)
    np.testing.assert_allclose(swag.deviation(*merged), models.std(axis=0), rtol=1e-12)


def test_members_are_spread_as_the_moments_say() -> None:
    members = np.stack(list(swag.draw(*MOMENTS, members=20_000, seed=1)))
    assert members.mean(axis=0) == pytest.approx(MEAN, abs=0.01)
    assert members.std(axis=0) == pytest.approx(DEVIATIONS, rel=0.02)
    assert abs(np.corrcoef(members.T)[0, 1]) < 0.02


def test_a_seed_gives_the_same_members_and_another_does_not() -> None:
    few, more, other = (
        list(swag.draw(*MOMENTS, members=members, seed=seed)) for members, seed in ((2, 7), (3, 7), (2, 8))
    )
    assert np.array_equal(few, more[:2])
    assert not np.isclose(few, other).any()
    assert not np.isclose(few[0], few[1]).any()


def test_the_spread_of_a_bayesian_line_is_not_zero_and_grows_off_the_data() -> None:
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, size=200)
    design = np.stack([np.ones_like(x), x], axis=1)
    y = design @ [1.0, 2.0] + rng.normal(scale=0.5, size=x.size)
    covariance = np.linalg.inv(design.T @ design / 0.5**2 + np.eye(2))
    mean = covariance @ design.T @ y / 0.5**2
    # Participants hold different numbers of models from the posterior.
    parts = [rng.multivariate_normal(mean, covariance, size=size) for size in (500, 1000, 2500)]
    merged = sum(moments(part) * len(part) for part in parts) / 4000

    places = np.array([0.0, 1.0, 5.0, 20.0])
    members = np.stack(list(swag.draw(*merged, members=4000, seed=3)))
    spread = measure(members[:, :1] + members[:, 1:] * places, Ending.VALUES).std

    known = np.sqrt(covariance[0, 0] + covariance[1, 1] * places**2)
    assert spread == pytest.approx(known, rel=0.05)
    assert spread[0] > 0.02
    assert (np.diff(spread) > 0).all()
    assert spread[3] > 10 * spread[0]


def test_moments_that_are_none_are_refused_before_anything_is_drawn() -> None:
    with pytest.raises(InvalidValue, match="second_moment has 1 values, first_moment 2"):
        swag.draw([1.0, 2.0], [1.0], members=1, seed=0)
    with pytest.raises(InvalidValue, match=r"first_moment has the shape \(1, 1\)"):
        swag.draw([[1.0]], [1.0], members=1, seed=0)
    with pytest.raises(NonFinite, match="second_moment"):
        swag.draw([1.0], [np.inf], members=1, seed=0)
    with pytest.raises(InvalidValue, match="members is 0"):
        swag.draw([1.0], [1.0], members=0, seed=0)
