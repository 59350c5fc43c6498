"""How sure a prediction is: measures of disagreement, calibration, and sets with a stated coverage; NumPy alone."""

from folkmoot.uncertainty.calibration import (
    TEMPERATURES,
    ClassStatistics,
    RegressionStatistics,
    Statistics,
    merged,
)
from folkmoot.uncertainty.calibration_json import from_json, to_json
from folkmoot.uncertainty.conformal import prediction_interval, prediction_set, threshold
from folkmoot.uncertainty.measures import Measures, measure
from folkmoot.uncertainty.outputs import Ending, detected, log_probabilities, probabilities
from folkmoot.uncertainty.reliability import ReliabilityBin, expected_calibration_error, reliability_bins
from folkmoot.uncertainty.temperature import federated_temperature, temperature_scaled

__all__ = [
    "TEMPERATURES",
    "ClassStatistics",
    "Ending",
    "Measures",
    "RegressionStatistics",
    "ReliabilityBin",
    "Statistics",
    "detected",
    "expected_calibration_error",
    "federated_temperature",
    "from_json",
    "log_probabilities",
    "measure",
    "merged",
    "prediction_interval",
    "prediction_set",
    "probabilities",
    "reliability_bins",
    "temperature_scaled",
    "threshold",
    "to_json",
]
