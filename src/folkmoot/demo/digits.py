"""Real handwritten digits, split as they would be in life: unevenly, and with some kept apart to judge by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from folkmoot.demo.examples import NUM_LABELS, Examples

Rows = npt.NDArray[np.int64]

HELD_OUT = 0.2
"""The part of every digit that no participant ever sees."""
CONCENTRATION = 0.3
"""Of the Dirichlet distribution: small values give each participant a few digits in plenty and others hardly at all."""
UNEVENNESS = 3
"""The largest share has at least so many times the examples of the smallest."""
SMALLEST_SHARE = 20
MAX_PARTICIPANTS = 20
"""With more, shares of a useful size become too rare to be drawn."""


@dataclass(frozen=True)
class Split:
    """Every image once: either held out or in one share."""

    held_out: Examples
    shares: list[Examples]


def load_digits() -> Examples:
    """The 1,797 digits that come with scikit-learn, 8 x 8 pixels each."""
    from sklearn import datasets

    images, labels = datasets.load_digits(return_X_y=True)
    return Examples((images / 16).astype(np.float32), labels.astype(np.int64))


def split(examples: Examples, participants: int, *, seed: int = 0) -> Split:
    """Hold some out and share the others among 2 to `MAX_PARTICIPANTS`; the same seed gives the same split.

    Seeds are tried from `seed` on, until one gives shares that are uneven and yet of use to everyone.
    """
    held_out, shares = _draw(examples.labels, participants, np.random.default_rng(seed))
    while not _is_uneven_but_useful([len(share) for share in shares]):
        seed += 1
        held_out, shares = _draw(examples.labels, participants, np.random.default_rng(seed))
    return Split(examples.take(held_out), [examples.take(share) for share in shares])


def _draw(labels: npt.NDArray[np.int64], participants: int, rng: np.random.Generator) -> tuple[Rows, list[Rows]]:
    """Label by label, so that the held-out part has every digit in its proportion."""
    held_out: list[Rows] = []
    shares: list[list[Rows]] = [[] for _ in range(participants)]
    for label in range(NUM_LABELS):
        rows = rng.permutation(np.flatnonzero(labels == label))
        first, rest = np.split(rows, [round(len(rows) * HELD_OUT)])
        held_out.append(first)
        ends = np.cumsum(rng.dirichlet([CONCENTRATION] * participants))[:-1] * len(rest)
        for share, part in zip(shares, np.split(rest, ends.round().astype(np.int64)), strict=True):
            share.append(part)
    return np.concatenate(held_out), [np.concatenate(share) for share in shares]


def _is_uneven_but_useful(sizes: list[int]) -> bool:
    return min(sizes) >= SMALLEST_SHARE and max(sizes) >= UNEVENNESS * min(sizes)
