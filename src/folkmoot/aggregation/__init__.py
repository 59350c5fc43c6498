"""Many updates become the next model, block by block."""

from folkmoot.aggregation.files import Report, aggregate_files, layout_of
from folkmoot.aggregation.finding import find_strategy, package_of, parameters_of, strategies
from folkmoot.aggregation.optimizers import SGD
from folkmoot.aggregation.screening import Scores, Screen
from folkmoot.aggregation.strategy import (
    Aggregator,
    Buffer,
    Cohort,
    ControlVariate,
    CoordinatewiseAggregator,
    Measure,
    ServerOptimizer,
    Source,
    Strategy,
    Update,
    Weights,
)

__all__ = [
    "SGD",
    "Aggregator",
    "Buffer",
    "Cohort",
    "ControlVariate",
    "CoordinatewiseAggregator",
    "Measure",
    "Report",
    "Scores",
    "Screen",
    "ServerOptimizer",
    "Source",
    "Strategy",
    "Update",
    "Weights",
    "aggregate_files",
    "find_strategy",
    "layout_of",
    "package_of",
    "parameters_of",
    "strategies",
]
