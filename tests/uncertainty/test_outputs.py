"""Probabilities, however a model ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from folkmoot.errors import InvalidValue, NonFinite
from folkmoot.uncertainty import Ending, detected, log_probabilities, probabilities

LIKELY = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
with np.errstate(divide="ignore"):
    LOGARITHMS = np.log(LIKELY)
LOGITS = arrays.arrays(np.float64, (3, 4), elements=st.floats(-50, 50))


@pytest.mark.parametrize(
    ("outputs", "ending"),
    [
        (LIKELY, Ending.PROBABILITIES),
        (LIKELY.astype(np.float16), Ending.PROBABILITIES),
        (LOGARITHMS, Ending.LOG_PROBABILITIES),
        (LOGARITHMS.astype(np.float32), Ending.LOG_PROBABILITIES),
        (LOGARITHMS[:1] + 3, Ending.LOGITS),
        (LIKELY * 1.01, Ending.LOGITS),
        ([[0.6, 0.6, -0.2]], Ending.LOGITS),
        ([[-1.0, -2.0]], Ending.LOGITS),
        ([[1.0], [1.0]], Ending.VALUES),
        ([1.0, 0.0], Ending.VALUES),
    ],
)
def test_the_end_of_a_model_is_seen_from_its_outputs(outputs: np.ndarray, ending: Ending) -> None:
    assert detected(outputs) is ending


@pytest.mark.parametrize("outputs", [LIKELY, LOGARITHMS, LOGARITHMS + 3, LOGARITHMS - 5000])
def test_probabilities_are_the_same_however_the_model_ends(outputs: np.ndarray) -> None:
    likely = probabilities(outputs)
    np.testing.assert_allclose(likely, LIKELY, rtol=1e-12)
    assert likely[1].tolist() == [0, 1, 0]


def test_a_declared_end_is_believed() -> None:
    assert probabilities([[1.0, 0.0]], Ending.LOGITS)[0, 0] == pytest.approx(np.e / (np.e + 1))


def test_the_classes_may_be_on_any_axis() -> None:
    pixels = np.stack([LOGARITHMS + 3, LOGARITHMS + 7], axis=-1)
    np.testing.assert_allclose(probabilities(pixels, axis=1)[..., 1], LIKELY, rtol=1e-12)


def test_the_logarithm_of_what_is_impossible_has_a_floor() -> None:
    assert log_probabilities(LIKELY)[1] == pytest.approx([-87.336, 0, -87.336], abs=1e-3)
    assert log_probabilities([[0.0, 40.0]])[0] == pytest.approx([-40, -4.248e-18], rel=1e-3, abs=1e-17)


@given(LOGITS)
def test_logits_and_probabilities_have_the_same_logarithms(logits: np.ndarray) -> None:
    of_logits = log_probabilities(logits, Ending.LOGITS)
    likely = probabilities(logits, Ending.LOGITS)
    assert likely.sum(axis=-1) == pytest.approx(np.ones(3))
    np.testing.assert_allclose(log_probabilities(likely, Ending.PROBABILITIES), np.maximum(of_logits, -87.4), atol=0.1)


@pytest.mark.parametrize("outputs", [[[np.nan, 1]], [[np.inf, 1]], [[-np.inf, -np.inf]]])
def test_what_has_no_distribution_is_refused(outputs: list[list[float]]) -> None:
    with pytest.raises(NonFinite, match="outputs"):
        probabilities(outputs)


def test_what_is_falsely_declared_is_refused() -> None:
    with pytest.raises(InvalidValue, match="said to be probabilities"):
        probabilities([[0.5, 0.6]], Ending.PROBABILITIES)
    with pytest.raises(InvalidValue, match="regression"):
        probabilities(LIKELY, Ending.VALUES)
    with pytest.raises(InvalidValue, match=r"\(2, 1\); expected two classes"):
        probabilities([[1.0], [2.0]])
