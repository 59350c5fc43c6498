"""Calibration statistics: what is counted, how they merge, and what follows from them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from folkmoot.errors import InvalidValue, NonFinite
from folkmoot.uncertainty import (
    TEMPERATURES,
    ClassStatistics,
    Ending,
    RegressionStatistics,
    Statistics,
    expected_calibration_error,
    federated_temperature,
    from_json,
    merged,
    probabilities,
    reliability_bins,
    temperature_scaled,
    to_json,
)

LIKELY = np.array([[0.9, 0.1], [0.92, 0.08], [0.4, 0.6], [1.0, 0.0]])
LABELS = np.array([0, 1, 1, 0])
OF_CLASSES = ClassStatistics.of(LIKELY, LABELS)
OF_RESIDUALS = RegressionStatistics.of([1.0, 2.0, 3.0], [1.5, 2.0, 1.0])


def overconfident(rows: int = 4000, times: float = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are so many times what they should be, and labels as likely as they should be."""
    rng = np.random.default_rng(4)
    logits = rng.normal(scale=1.5, size=(rows, 10))
    return times * logits, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def parts_of(*rows: np.ndarray) -> Any:
    """Shares of a participant each, of very different sizes."""
    return zip(*(np.split(each, [3, 50, 1000]) for each in rows), strict=True)


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels]).sum())


def test_rows_are_counted_by_the_confidence_of_their_prediction() -> None:
    counts = dict.fromkeys(range(15), (0, 0, 0.0))
    counts |= {8: (1, 1, 0.6), 13: (2, 1, 0.9 + 0.92), 14: (1, 1, 1.0)}
    found = zip(OF_CLASSES.bin_counts, OF_CLASSES.bin_correct, OF_CLASSES.bin_confidences, strict=True)
    assert list(found) == list(counts.values())
    assert OF_CLASSES.rows == 4


def test_the_score_is_what_the_right_class_lacks() -> None:
    # 0.1, 0.92, 0.4 and 0; an edge belongs to the bin under it.
    assert {k: count for k, count in enumerate(OF_CLASSES.score_counts) if count} == {0: 1, 49: 1, 199: 1, 459: 1}


def test_the_log_loss_is_taken_at_every_temperature() -> None:
    logits, labels = overconfident(rows=50)
    for temperature, loss in zip(TEMPERATURES, ClassStatistics.of(logits, labels).log_losses, strict=True):
        assert loss == pytest.approx(log_loss(logits / temperature, labels))


def test_the_grid_is_public_and_has_the_model_as_it_is_in_its_middle() -> None:
    assert (TEMPERATURES[0], TEMPERATURES[40], TEMPERATURES[-1], len(TEMPERATURES)) == (0.1, 1, 10, 81)


def test_a_right_class_that_was_held_impossible_costs_much_but_not_everything() -> None:
    assert ClassStatistics.of([[1.0, 0.0]], [1]).log_losses[40] == pytest.approx(87.34, abs=0.01)


def test_residuals_are_counted_by_magnitude_and_the_largest_of_several_targets() -> None:
    counted = [count for count in OF_RESIDUALS.residual_counts if count]
    assert counted == [1, 1, 1]
    assert OF_RESIDUALS.residual_counts[0] == 1
    both = RegressionStatistics.of([[1.0, 2.0]], [[1.5, 4.0]])
    assert both == RegressionStatistics.of([0.0], [2.0])


def test_merged_statistics_are_those_of_all_rows() -> None:
    logits, labels = overconfident()
    together = merged([ClassStatistics.of(*part) for part in parts_of(logits, labels)])
    pooled = ClassStatistics.of(logits, labels)
    for name in ("bin_counts", "bin_correct", "score_counts"):
        assert getattr(together, name) == getattr(pooled, name)
    for name in ("bin_confidences", "log_losses", "scaled_gaps"):
        assert getattr(together, name) == pytest.approx(getattr(pooled, name), rel=1e-12, abs=1e-9)
    assert expected_calibration_error(together) == pytest.approx(expected_calibration_error(pooled), rel=1e-12)
    assert federated_temperature(together) == pytest.approx(federated_temperature(pooled), rel=1e-9)


def test_merged_residuals_are_those_of_all_rows() -> None:
    predictions, targets = np.random.default_rng(5).normal(size=(2, 2000))
    together = merged([RegressionStatistics.of(*part) for part in parts_of(predictions, targets)])
    assert together == RegressionStatistics.of(predictions, targets)


def test_the_order_of_arrival_changes_no_bit() -> None:
    parts = [ClassStatistics.of(*part) for part in parts_of(*overconfident())]
    assert merged(parts) == merged(parts[::-1]) == merged([parts[2], parts[0], parts[3], parts[1]])


def test_only_what_is_alike_is_merged() -> None:
    with pytest.raises(InvalidValue, match="task"):
        merged([OF_CLASSES, OF_RESIDUALS])
    with pytest.raises(InvalidValue, match="none to merge"):
        merged([])


def test_the_calibration_error_is_the_mean_gap() -> None:
    # Bins hold 0.6 (right), 0.9 and 0.92 (one right), 1.0 (right).
    assert expected_calibration_error(OF_CLASSES) == pytest.approx((0.4 + 2 * 0.41 + 0) / 4)
    half = reliability_bins(OF_CLASSES)[1]
    assert (half.lower, half.upper, half.count, half.accuracy) == (13 / 15, 14 / 15, 2, 0.5)
    assert half.confidence == pytest.approx(0.91)
    assert len(reliability_bins(OF_CLASSES)) == 3


def test_scaling_by_the_federated_temperature_makes_an_overconfident_model_honest() -> None:
    logits, labels = overconfident()
    temperature = federated_temperature(merged([ClassStatistics.of(*part) for part in parts_of(logits, labels)]))
    before = expected_calibration_error(ClassStatistics.of(logits, labels))
    after = expected_calibration_error(ClassStatistics.of(temperature_scaled(logits, temperature), labels))
    assert temperature == pytest.approx(3, rel=0.05)
    assert before > 0.15
    assert after < 0.02


@pytest.mark.parametrize("temperature", TEMPERATURES[::10])
def test_the_calibration_error_after_scaling_is_in_the_counts(temperature: float) -> None:
    logits, labels = overconfident()
    together = merged([ClassStatistics.of(*part) for part in parts_of(logits, labels)])
    scaled = ClassStatistics.of(temperature_scaled(logits, temperature), labels)
    assert expected_calibration_error(together, temperature * 1.02) == pytest.approx(expected_calibration_error(scaled))


@pytest.mark.parametrize("times", [0.37, 1, 3])
def test_the_temperature_is_found_between_the_points_of_the_grid(times: float) -> None:
    logits, labels = overconfident(times=times)
    finely = np.geomspace(times * 0.9, times * 1.1, 400)
    best = finely[np.argmin([log_loss(logits / each, labels) for each in finely])]
    assert federated_temperature(ClassStatistics.of(logits, labels)) == pytest.approx(best, rel=2e-3)


def test_beyond_the_grid_the_temperature_is_its_end() -> None:
    logits, labels = overconfident(rows=500, times=50)
    assert federated_temperature(ClassStatistics.of(logits, labels)) == 10
    assert federated_temperature(ClassStatistics.of([[2.0, 1.0]], [0], Ending.LOGITS)) == 0.1


def test_scaling_keeps_the_order_and_what_is_certain() -> None:
    likely = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    scaled = temperature_scaled(likely, 2)
    assert scaled[0] == pytest.approx(np.sqrt(likely[0]) / np.sqrt(likely[0]).sum())
    assert scaled[1].tolist() == [0, 1, 0]
    assert temperature_scaled(likely, 1) == pytest.approx(likely)
    assert temperature_scaled(likely, 1e-300).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert temperature_scaled(np.log(likely[:1]) + 5, 2) == pytest.approx(scaled[:1])
    assert probabilities(temperature_scaled(likely, 1e300)[:1]) == pytest.approx(np.full((1, 3), 1 / 3))


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_no_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(InvalidValue, match="temperature"):
        temperature_scaled(LIKELY, temperature)


@pytest.mark.parametrize("statistics", [OF_CLASSES, OF_RESIDUALS, ClassStatistics.of(*overconfident())])
def test_statistics_are_the_same_after_a_journey_as_json(statistics: Statistics) -> None:
    assert from_json(json.loads(json.dumps(to_json(statistics), allow_nan=False))) == statistics


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", None),
        ("task", "clustering"),
        ("task", []),
        ("bin_counts", None),
        ("bin_counts", {}),
        ("bin_counts", [4]),
        ("bin_counts[0]", -1),
        ("bin_counts[0]", 1.0),
        ("bin_counts[0]", True),
        ("bin_counts[0]", "1"),
        pytest.param("bin_counts[0]", 10**5000, id="a number of 5000 digits"),
        ("bin_correct[8]", 2),
        ("bin_confidences[8]", 0.2),
        ("bin_confidences[8]", 0.9),
        ("bin_confidences[0]", 0.01),
        ("bin_confidences[0]", math.nan),
        ("bin_confidences[0]", math.inf),
        ("log_losses[3]", -0.1),
        pytest.param("log_losses[3]", 10**400, id="a sum of 400 digits"),
        ("log_losses[3]", None),
        ("log_losses[3]", 1e6),
        ("scaled_gaps[0]", None),
        ("scaled_gaps[0]", math.nan),
        ("scaled_gaps[0]", -4.1),
        ("scaled_gaps[613]", 0.1),
        ("score_counts[0]", 2),
        ("surprise", 1),
    ],
)
def test_what_no_rows_can_have_given_is_refused_by_name(field: str, value: object) -> None:
    data = to_json(OF_CLASSES)
    name, _, index = field.partition("[")
    if index:
        data[name][int(index[:-1])] = value
    else:
        data[name] = value
    with pytest.raises(InvalidValue, match=f"^{name}") as refused:
        from_json(data)
    assert len(str(refused.value)) < 200


def test_nobody_sends_statistics_of_nothing_or_of_everything() -> None:
    data = to_json(OF_RESIDUALS)
    for counts in ([0] * len(data["residual_counts"]), [10**9] * len(data["residual_counts"])):
        with pytest.raises(InvalidValue, match=r"residual_counts: \d+ rows"):
            from_json(data | {"residual_counts": counts})
    for other in (None, [], "task"):
        with pytest.raises(InvalidValue, match="expected an object"):
            from_json(other)


@pytest.mark.parametrize("labels", [[0, 1, 2, 0], [0, -1, 0, 0], [0.0, 1.0, 0.0, 0.0], [0, 1], [[0, 1, 0, 1]]])
def test_labels_that_do_not_fit_the_outputs_are_refused(labels: list[Any]) -> None:
    with pytest.raises(InvalidValue, match="labels"):
        ClassStatistics.of(LIKELY, labels)


def test_targets_that_do_not_fit_the_predictions_are_refused() -> None:
    with pytest.raises(InvalidValue, match=r"targets have the shape \(2,\), predictions \(3,\)"):
        RegressionStatistics.of([1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(NonFinite):
        RegressionStatistics.of([1.0], [np.nan])
