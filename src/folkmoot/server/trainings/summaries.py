"""What many values of one metric come to: their weighted mean, their spread, and the worst of them. Pure numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

_LOWER = frozenset(
    {
        *(
            "ber",
            "brier",
            "cer",
            "cost",
            "deviation",
            "distance",
            "divergence",
            "ece",
            "eer",
            "err",
            "fid",
            "fnr",
            "fpr",
        ),
        *("kl", "latency", "loss", "mae", "mape", "mse", "msle", "nll", "penalty", "perplexity", "ppl", "regret"),
        *("residual", "rmse", "rmsle", "runtime", "seconds", "sse", "wer"),
    }
)
_LOWER_ENDINGS = ("loss", "error", "entropy", "errors", "losses")


def is_better_lower(name: str) -> bool:
    """Whether a metric of this name is better the lower it is.

    That is so where a word of the name is that of an error, a loss, a distance or a cost, as in `val_loss`, `RMSE`,
    `test/perplexity` and `crossentropy`; of any other name higher is better.
    """
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return any(word in _LOWER or word.endswith(_LOWER_ENDINGS) for word in map(str.lower, words))


@dataclass(frozen=True)
class Reported:
    """What one participant reported; None for a number that was not finite."""

    participant: UUID
    value: float | None
    num_examples: int


@dataclass(frozen=True)
class Summary:
    """`std` is the deviation of the population, weighted as the mean is; all four numbers are None of no values.

    `count` and `num_examples` are of the values that count, `num_left_out` says how many did not.
    """

    mean: float | None
    std: float | None
    minimum: float | None
    maximum: float | None
    count: int
    num_examples: int
    num_left_out: int
    worst: UUID | None


def summarize(reports: Sequence[Reported], *, lower_is_better: bool) -> Summary:
    """Weight each value by its examples; one that is not finite, or of no examples, is left out.

    The same values in any order give the same bits. Of several that are equally bad, the worst is the one with the
    smallest id.
    """
    counted = [(each.value, each) for each in reports if each.value is not None and each.num_examples > 0]
    left_out = len(reports) - len(counted)
    if not counted:
        return Summary(None, None, None, None, 0, 0, left_out, None)
    values = [value for value, _ in counted]
    total = sum(each.num_examples for _, each in counted)
    # Within [-1, 1], so that no sum or square of what is finite is infinite.
    scale = max(map(abs, values)) or 1.0
    shares = [(value / scale, each.num_examples / total) for value, each in counted]
    mean = math.fsum(value * share for value, share in shares)
    variance = math.fsum((value - mean) ** 2 * share for value, share in shares)
    low, high = min(values), max(values)
    sign = -1 if lower_is_better else 1
    _, worst = min(counted, key=lambda each: (sign * each[0], each[1].participant))
    return Summary(
        mean=min(max(mean * scale, low), high),
        std=math.sqrt(variance) * scale if low != high else 0.0,
        minimum=low,
        maximum=high,
        count=len(counted),
        num_examples=total,
        num_left_out=left_out,
        worst=worst.participant,
    )
