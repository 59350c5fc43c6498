"""Many updates become the next model, block by block."""

from folkmoot.aggregation.files import Report, aggregate_files
from folkmoot.aggregation.strategy import (
    Aggregator,
    ServerOptimizer,
    Source,
    Strategy,
    Update,
    find_strategy,
    strategies,
)

__all__ = [
    "Aggregator",
    "Report",
    "ServerOptimizer",
    "Source",
    "Strategy",
    "Update",
    "aggregate_files",
    "find_strategy",
    "strategies",
]
