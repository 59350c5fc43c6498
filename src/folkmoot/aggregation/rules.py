"""What happens to each tensor: most are the strategy's, some are statistics or counters with a rule of their own.

By default the running mean and variance of batch normalisation are averaged like everything else, but no server
optimizer moves them and no step goes beyond the updates (a variance must not become negative), and
`num_batches_tracked` becomes the largest of all. Other whole numbers and truth values are averaged and rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from folkmoot.errors import InvalidValue
from folkmoot.tensors.schema import TensorSpec, is_float


class Treatment(Enum):
    MERGE = "merge"
    """By the strategy, aggregator and server optimizer both; only for floats."""
    MEAN = "mean"
    """By the aggregator alone, as a mean whatever its weights sum to."""
    KEEP = "keep"
    """Stays what it was when the round began."""
    MAX = "max"
    """The largest of the updates."""
    CONTROL = "control"
    """A control variate, which is no tensor of the model."""


DEFAULT_RULES = (
    ("*running_mean", "mean"),
    ("*running_var", "mean"),
    ("*num_batches_tracked", "max"),
)
CHOICES = ("keep", "max", "mean")
MOST_RULES, MOST_CHARACTERS = 100, 200
"""Each pattern is compared with the name of each tensor."""


def treatment_of(spec: TensorSpec, rules: Iterable[tuple[str, str]]) -> Treatment:
    """The last of the rules whose pattern matches, after the default ones."""
    chosen = Treatment.MERGE if is_float(spec.numpy_dtype) else Treatment.MEAN
    for pattern, rule in (*DEFAULT_RULES, *rules):
        if fnmatchcase(spec.name, pattern):
            chosen = Treatment(rule)
    return chosen


def checked_rules(given: Any) -> tuple[tuple[str, str], ...]:
    """Read an object of patterns and rules; raises InvalidValue."""
    if not isinstance(given, Mapping):
        raise InvalidValue(f"rules are an object of patterns and one of {', '.join(CHOICES)} each, not {given!r}")
    if len(given) > MOST_RULES or any(len(pattern) > MOST_CHARACTERS for pattern in given):
        raise InvalidValue(f"rules are at most {MOST_RULES} patterns of at most {MOST_CHARACTERS} characters each")
    for pattern, rule in given.items():
        if rule not in CHOICES:
            raise InvalidValue(f"the rule for {pattern!r} is one of {', '.join(CHOICES)}, not {rule!r}")
    return tuple(given.items())
