"""Aggregators that some of the updates cannot lead astray: against slow ones, by hand, and under attack."""

from __future__ import annotations

import math

import numpy as np
import pytest

from folkmoot.aggregation import find_strategy
from folkmoot.errors import AggregationFailed, InvalidValue


def receive_rows(a_round, rows, dtype="f8") -> None:
    """A model of zeros, and an update of one tensor for each row; numbers of examples that must not matter."""
    rows = np.asarray(rows, dtype)
    a_round.begin_with({"w": np.zeros(rows.shape[1], dtype)})
    for number, row in enumerate(rows):
        a_round.receive({"w": row}, num_examples=1 + 1000 * number)


def merged(a_round, name, rows, dtype="f8", **options) -> np.ndarray:
    receive_rows(a_round, rows, dtype)
    return a_round.result(find_strategy(name, options))["w"].astype("f8")


def scattered(n, size=40, seed=1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, size))


# coordinate by coordinate


@pytest.mark.parametrize(("values", "middle"), [([5], 5), ([1, 9, 2], 2), ([1, 2, 4, 100], 3), ([7, 7, 1, 1], 4)])
def test_the_median_by_hand(a_round, values, middle):
    assert merged(a_round, "Median", [[value] for value in values]).tolist() == [middle]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 9, 16, 31])
def test_the_median_is_numpys(a_round, n, dtype):
    rows = scattered(n).astype(dtype)

    expected = np.median(rows.astype("f8"), axis=0).astype(dtype)

    np.testing.assert_array_equal(merged(a_round, "Median", rows, dtype), expected)


@pytest.mark.parametrize(
    ("trim", "values", "mean"),
    [
        (0.25, [1, 2, 4, 100], 3),
        (0.1, [1, 2, 3, -50, 50], 2),  # one from each side at least
        (0.4, [0, 1, 5, 6, 99], 5),
        (0.0, [1, 2, 9], 4),
    ],
)
def test_the_trimmed_mean_by_hand(a_round, trim, values, mean):
    assert merged(a_round, "TrimmedMean", [[value] for value in values], trim=trim).tolist() == [mean]


@pytest.mark.parametrize("trim", [0.0, 0.1, 0.28, 1 / 3, 0.45])
@pytest.mark.parametrize("n", [11, 20, 25])
def test_the_trimmed_mean_is_that_of_the_paper(a_round, n, trim):
    rows = scattered(n)
    left_out = math.ceil(round(trim * n, 6))

    expected = np.sort(rows, axis=0)[left_out : n - left_out].mean(axis=0)

    np.testing.assert_allclose(merged(a_round, "TrimmedMean", rows, trim=trim), expected, rtol=1e-13)


@pytest.mark.parametrize("trim", [0, 0.01, 0.1, 0.2, 0.25, 0.3, 1 / 3, 0.4, 0.45, 0.49, 0.499])
def test_the_least_number_of_updates_is_where_one_is_left_of_the_trimmed(trim):
    least = next(n for n in range(1, 10_000) if n > 2 * math.ceil(round(trim * n, 6)))

    assert find_strategy("TrimmedMean", {"trim": trim}).min_updates == least


def test_the_least_number_of_updates_is_found_at_once_however_large():
    assert find_strategy("TrimmedMean", {"trim": 0.4999999999}).min_updates > 10**9


# by distance


def slow_krum_scores(rows, f):
    """Blanchard et al. 2017, section 4: the sum of the squared distances to the n - f - 2 closest of the others."""
    scores = []
    for i, row in enumerate(rows):
        distances = sorted(float((row - other) @ (row - other)) for j, other in enumerate(rows) if j != i)
        scores.append(sum(distances[: max(len(rows) - f - 2, 1)]))
    return scores


def test_krum_by_hand(a_round):
    # Of five with f = 1 the two next: 0 scores 1 + 4, 1 scores 1 + 1, 2 scores 1 + 4, the others more.
    assert merged(a_round, "Krum", [[2], [50], [1], [0], [-50]], num_byzantine=1).tolist() == [1]


def test_of_equal_scores_the_first_by_id_is_chosen(a_round):
    assert merged(a_round, "Krum", [[1], [-1], [1], [-1], [0], [9]], num_byzantine=0).tolist() == [0]
    a_round.updates.clear()
    assert merged(a_round, "Krum", [[3], [4], [3], [4]], num_byzantine=0).tolist() == [3]


@pytest.mark.parametrize(("n", "f"), [(3, 0), (7, 2), (12, 2), (25, 5)])
def test_krum_is_that_of_the_paper(a_round, n, f):
    rows = scattered(n)

    expected = rows[int(np.argmin(slow_krum_scores(rows, f)))]

    np.testing.assert_array_equal(merged(a_round, "Krum", rows, num_byzantine=f), expected)


@pytest.mark.parametrize("num_selected", [None, 1, 4])
@pytest.mark.parametrize(("n", "f"), [(7, 2), (12, 2), (25, 5)])
def test_multi_krum_is_the_mean_of_the_best(a_round, n, f, num_selected):
    rows = scattered(n)

    best = np.argsort(slow_krum_scores(rows, f))[: num_selected or n - f]

    result = merged(a_round, "MultiKrum", rows, num_byzantine=f, num_selected=num_selected)
    np.testing.assert_allclose(result, rows[best].mean(axis=0), rtol=1e-12, atol=1e-14)


def slow_bulyan(rows, f):
    """El Mhamdi et al. 2018, section 4: n - 2f by Krum one after another, then per value the n - 4f at the median."""
    left = list(rows)
    chosen = [left.pop(int(np.argmin(slow_krum_scores(left, f)))) for _ in range(len(rows) - 2 * f)]
    result = np.zeros(rows.shape[1])
    for column in range(rows.shape[1]):
        values = [row[column] for row in chosen]
        closest = sorted(values, key=lambda value: (abs(value - np.median(values)), value))[: len(rows) - 4 * f]
        result[column] = np.mean(closest)
    return result


@pytest.mark.parametrize(("n", "f"), [(3, 0), (7, 1), (8, 1), (11, 2), (16, 3), (20, 2)])
def test_bulyan_is_that_of_the_paper(a_round, n, f):
    rows = scattered(n)

    np.testing.assert_allclose(merged(a_round, "Bulyan", rows, num_byzantine=f), slow_bulyan(rows, f), rtol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_of_many_equal_values_bulyan_takes_those_that_are_closest(a_round, seed):
    rows = np.random.default_rng(seed).integers(-3, 4, (8, 60)).astype("f8")

    np.testing.assert_allclose(merged(a_round, "Bulyan", rows, num_byzantine=1), slow_bulyan(rows, 1), atol=1e-12)


def test_the_geometric_median_by_hand(a_round):
    """Of three points on a line the one in the middle; of the corners of a square its centre."""
    assert merged(a_round, "RFA", [[0.0], [1.0], [100.0]]) == pytest.approx([1], abs=1e-5)
    a_round.updates.clear()
    assert merged(a_round, "RFA", [[0, 0], [4, 0], [0, 4], [4, 4]]) == pytest.approx([2, 2])


def slow_weiszfeld(rows, smoothing=1e-6):
    """Pillutla et al. 2022, Algorithm 2, on the updates themselves, and for long."""
    point = rows.mean(axis=0)
    for _ in range(5000):
        weights = np.array([1 / max(smoothing, np.linalg.norm(row - point)) for row in rows])
        point = weights @ rows / weights.sum()
    return point


@pytest.mark.parametrize("n", [1, 2, 5, 12, 25])
def test_the_geometric_median_is_that_of_the_paper(a_round, n):
    rows = scattered(n)

    np.testing.assert_allclose(merged(a_round, "RFA", rows), slow_weiszfeld(rows), rtol=1e-6, atol=1e-8)


def test_no_point_nearby_has_a_smaller_sum_of_distances(a_round):
    rows = scattered(9, size=3)
    point = merged(a_round, "RFA", rows)

    def cost(at):
        return np.linalg.norm(rows - at, axis=1).sum()

    for step in np.random.default_rng(2).standard_normal((200, 3)):
        assert cost(point) <= cost(point + 1e-3 * step) + 1e-12


def test_centered_clipping_by_hand(a_round):
    # Of the steps 3 and -8 and 1 no more than 2: (2 - 2 + 1) / 3.
    assert merged(a_round, "CenteredClipping", [[3], [-8], [1]], radius=2) == pytest.approx([1 / 3])


def slow_centered_clipping(rows, radius, iterations):
    """Karimireddy et al. 2021, equation 6, from zero on."""
    centre = np.zeros(rows.shape[1])
    for _ in range(iterations):
        steps = [row - centre for row in rows]
        centre = centre + sum(step * min(1, radius / np.linalg.norm(step)) for step in steps) / len(rows)
    return centre


@pytest.mark.parametrize("iterations", [1, 2, 10])
@pytest.mark.parametrize("radius", [0.5, 6.0, 100.0])
def test_centered_clipping_is_that_of_the_paper(a_round, radius, iterations):
    rows = scattered(9)

    result = merged(a_round, "CenteredClipping", rows, radius=radius, iterations=iterations)

    np.testing.assert_allclose(result, slow_centered_clipping(rows, radius, iterations), rtol=1e-9, atol=1e-12)


def test_the_geometric_median_and_centered_clipping_are_about_the_model_that_the_round_began_with(a_round):
    """Distances are computed of deltas; where these begin matters to none but centered clipping."""
    rows = scattered(5)
    a_round.begin_with({"w": np.full(40, 3.0)})
    for row in rows:
        a_round.receive({"w": 3 + row})

    options = {"radius": 2.0, "iterations": 3}
    clipped = a_round.result(find_strategy("CenteredClipping", options))["w"]
    assert clipped == pytest.approx(3 + slow_centered_clipping(rows, 2.0, 3))
    assert a_round.result(find_strategy("RFA", {}))["w"] == pytest.approx(3 + slow_weiszfeld(rows), rel=1e-6)


# under attack

HONEST = scattered(8, seed=7)
FAR = [1e3, 1e30]
DIRECTIONS = ["one way", "each its own", "both ways"]


def attacked(a_round, name, num_attackers, far, direction, dtype="f8", **options):
    """The result where the attackers, first and last by id, are so far away; honest ones are around a common point."""
    honest = 1 + HONEST / 8
    signs = np.random.default_rng(3).choice([-1.0, 1.0], (num_attackers, honest.shape[1]))
    if direction == "one way":
        signs[:] = 1
    elif direction == "both ways":
        signs[:] = np.where(np.arange(num_attackers) % 2, 1, -1)[:, None]
    half = num_attackers // 2
    rows = np.concatenate([far * signs[:half], honest, far * signs[half:]])
    return merged(a_round, name, rows, dtype, **options), honest.astype(dtype).astype("f8")


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize(
    ("name", "num_attackers", "options"),
    [
        ("Median", 7, {}),
        ("TrimmedMean", 2, {"trim": 0.2}),
        ("TrimmedMean", 6, {"trim": 0.45}),
        ("Bulyan", 1, {"num_byzantine": 1}),
    ],
)
def test_every_value_stays_within_the_range_of_the_honest_ones(a_round, name, num_attackers, options, far, direction):
    """Yin et al. 2018: with fewer attackers than half, or than `trim`, something honest is on either side of each."""
    result, honest = attacked(a_round, name, num_attackers, far, direction, "f4", **options)

    assert (result >= honest.min(axis=0)).all()
    assert (result <= honest.max(axis=0)).all()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("f", [1, 2, 5])
def test_krum_chooses_one_of_the_honest(a_round, f, far, direction):
    """An attacker's n - f - 2 nearest include an honest one, which is far away; those of an honest one need not.

    For n >= 2f + 3: the other attackers are f - 1, fewer than n - f - 2. Blanchard et al. 2017, proposition 1.
    """
    result, honest = attacked(a_round, "Krum", f, far, direction, num_byzantine=f)

    assert result.tolist() in honest.tolist()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("f", [1, 2, 5])
def test_multi_krum_is_the_mean_of_the_honest(a_round, f, far, direction):
    result, honest = attacked(a_round, "MultiKrum", f, far, direction, num_byzantine=f)

    np.testing.assert_allclose(result, honest.mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("num_attackers", [1, 3, 6])
def test_the_geometric_median_stays_as_near_as_its_bound(a_round, num_attackers, far, direction):
    """Of n updates no more than a n are farther than r from a point: (1 - a) sqrt(1 / (1 - 2a)) r, and no farther.

    Source: Minsker 2015, lemma 2.1, https://arxiv.org/abs/1308.1334; the point here is the honest mean.
    """
    result, honest = attacked(a_round, "RFA", num_attackers, far, direction)

    centre = honest.mean(axis=0)
    radius = np.linalg.norm(honest - centre, axis=1).max()
    share = num_attackers / (num_attackers + len(honest))
    assert np.linalg.norm(result - centre) <= (1 - share) * (1 / (1 - 2 * share)) ** 0.5 * radius


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("num_attackers", [1, 3])
@pytest.mark.parametrize("iterations", [1, 3])
def test_an_attacker_moves_centered_clipping_by_a_share_of_the_radius(
    a_round, iterations, num_attackers, far, direction
):
    """Each of n adds at most radius / n to the centre in each iteration: Karimireddy et al. 2021, equation 6."""
    radius = 50.0  # as far as the honest ones are and farther
    result, honest = attacked(
        a_round, "CenteredClipping", num_attackers, far, direction, radius=radius, iterations=iterations
    )

    # Without them the centre would go h / n of the way to the honest mean each time.
    share = len(honest) / (len(honest) + num_attackers)
    alone = (1 - (1 - share) ** iterations) * honest.mean(axis=0)
    assert np.linalg.norm(result - alone) <= iterations * num_attackers * radius / (len(honest) + num_attackers)


@pytest.mark.parametrize(("name", "options"), [("Krum", {"num_byzantine": 2}), ("RFA", {}), ("q-FedAvg", {})])
def test_one_that_is_too_far_to_be_measured_is_left_out_and_named(a_round, name, options, for_strategy):
    strategy = find_strategy(name, options)
    receive_rows(a_round, [*HONEST, np.full(40, 1e300)])
    for_strategy(a_round, strategy)

    report = a_round.aggregate(strategy)

    assert {scores.status for id_, scores in report.scores.items() if id_ != "00008"} == {"accepted"}
    assert report.scores["00008"].status == "rejected"
    assert report.scores["00008"].reason == "its norm is too large to be computed"


def test_the_scores_say_who_was_chosen(a_round):
    receive_rows(a_round, [[2], [50], [1], [0], [-50]])

    report = a_round.aggregate(find_strategy("Krum", {"num_byzantine": 1}))

    assert [scores.weight for scores in report.scores.values()] == [0, 0, 1, 0, 0]
    assert [scores.norm for scores in report.scores.values()] == [2, 50, 1, 0, 50]


# what they cannot do


@pytest.mark.parametrize(
    ("name", "options", "needed"),
    [
        ("Krum", {"num_byzantine": 1}, 5),
        ("MultiKrum", {"num_byzantine": 1}, 5),
        ("MultiKrum", {"num_byzantine": 1, "num_selected": 8}, 8),
        ("Bulyan", {"num_byzantine": 2}, 11),
        ("TrimmedMean", {"trim": 0.4}, 5),
    ],
)
def test_fewer_updates_than_it_needs_are_an_error_that_says_how_many(a_round, name, options, needed):
    strategy = find_strategy(name, options)
    receive_rows(a_round, scattered(needed))

    assert strategy.min_updates == needed
    a_round.aggregate(strategy)
    with pytest.raises(AggregationFailed, match=f"^{name} needs {needed} updates, and there are {needed - 1}$"):
        a_round.aggregate(strategy, updates=a_round.updates[1:])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("TrimmedMean", {"trim": 0.5}, "trim is at least 0 and below 0.5, not 0.5"),
        ("TrimmedMean", {"trim": -0.1}, "trim is at least 0 and below 0.5, not -0.1"),
        ("Krum", {}, "Krum needs the option 'num_byzantine'"),
        ("Krum", {"num_byzantine": -1}, "num_byzantine is at least 0, not -1"),
        ("Krum", {"num_byzantine": 1.0}, "'num_byzantine' of Krum must be a whole number, not 1.0"),
        ("MultiKrum", {"num_byzantine": 1, "num_selected": 0}, "num_selected is at least 1, not 0"),
        ("MultiKrum", {"num_byzantine": 1, "num_selected": "all"}, "must be a whole number or null, not 'all'"),
        ("Bulyan", {"num_byzantine": -1}, "num_byzantine is at least 0, not -1"),
        ("RFA", {"smoothing": 0}, "smoothing is a number above 0, not 0"),
        ("RFA", {"max_iterations": 0}, "max_iterations is from 1 to 10000, not 0"),
        ("CenteredClipping", {}, "CenteredClipping needs the option 'radius'"),
        ("CenteredClipping", {"radius": 0}, "radius is a number above 0, not 0"),
        ("CenteredClipping", {"radius": 1, "iterations": 10**9}, "iterations is from 1 to 10000, not 1000000000"),
        ("Median", {"server_learning_rate": 0}, "the server learning rate is a number above 0, not 0"),
    ],
)
def test_options_out_of_their_range_are_named(name, options, message):
    with pytest.raises(InvalidValue, match=message):
        find_strategy(name, options)
