"""What is done to updates before they are merged, under every strategy: shortened, or left out."""

from __future__ import annotations

import numpy as np
import pytest

from folkmoot.aggregation import Scores, find_strategy
from folkmoot.errors import AggregationFailed, InvalidValue


def receive_deltas(a_round, deltas, base=5.0) -> None:
    """A model of two tensors, 3 and 1 values long, around `base`."""

    def tensors(row):
        return {"a": np.asarray(row[:3], "f8"), "b": np.asarray(row[3:], "f8")}

    a_round.begin_with(tensors(np.full(4, base)))
    for delta in deltas:
        a_round.receive(tensors(base + np.asarray(delta, "f8")))


def delta_of(a_round, name, base=5.0, **options) -> np.ndarray:
    result = a_round.result(find_strategy(name, options))
    return np.concatenate([result["a"], result["b"]]) - base


# clipping


def test_the_norm_is_over_all_tensors_together(a_round):
    receive_deltas(a_round, [[3, 0, 0, 4], [0, 1, 0, 0]])

    # The first has the norm 5 and becomes a half of itself, the second is within the bound.
    assert delta_of(a_round, "FedAvg", clip=2.5).tolist() == [0.75, 0.5, 0, 1]


def slow_clip(delta, bound):
    """Abadi et al. 2016, Algorithm 1: divided by max(1, norm / bound)."""
    return delta / max(1, np.linalg.norm(delta) / bound)


def slow_merge(name, deltas):
    if name == "Median":
        return np.median(deltas, axis=0)
    if name == "Krum":
        distances = np.linalg.norm(deltas[:, None] - deltas[None], axis=2) ** 2
        return deltas[np.sort(distances, axis=1)[:, : len(deltas) - 1 - 1].sum(axis=1).argmin()]
    return deltas.mean(axis=0)


@pytest.mark.parametrize("name", ["FedAvg", "Median", "Krum", "SCAFFOLD"])
def test_every_strategy_merges_what_is_left_of_the_deltas(a_round, for_strategy, strategy_named, name):
    deltas = np.random.default_rng(4).standard_normal((6, 4)) * [[0.1], [1], [2], [0.5], [30], [1]]
    receive_deltas(a_round, deltas)
    strategy = strategy_named(name, clip=1.5)
    for_strategy(a_round, strategy)

    result = a_round.result(strategy)

    expected = slow_merge(name, np.array([slow_clip(delta, 1.5) for delta in deltas]))
    assert np.concatenate([result["a"], result["b"]]) - 5 == pytest.approx(expected, rel=1e-9)


def test_of_what_is_no_part_of_the_norm_nothing_is_clipped(a_round):
    statistics = {"bn.running_var": np.full(2, 100, "f4"), "n": np.array([1000])}
    a_round.begin_with({"w": np.zeros(2, "f4"), "bn.running_var": np.ones(2, "f4"), "n": np.array([0])})
    a_round.receive({"w": np.array([0.6, 0.8], "f4"), **statistics})

    result = a_round.result(find_strategy("FedAvg", {"clip": 1.5}))

    assert result["w"].tolist() == pytest.approx([0.6, 0.8])
    assert result["bn.running_var"].tolist() == [100, 100]
    assert result["n"].tolist() == [1000]


def test_the_scores_are_of_the_deltas_before_clipping(a_round):
    receive_deltas(a_round, [[3, 0, 0, 4], [0, 1, 0, 0]])

    report = a_round.aggregate(find_strategy("FedAvg", {"clip": 1}))

    assert [scores.norm for scores in report.scores.values()] == [5, 1]


# scores


def test_the_scores_by_hand(a_round):
    receive_deltas(a_round, [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [-5, 0, 0, 0]])

    scores = list(a_round.aggregate(find_strategy("FedAvg", {"scores": True})).scores.values())

    # The mean is (-3, 2) / 4, whose norm is sqrt(13) / 4; the median of the norms is 2.
    assert scores == [
        Scores(2, 1, pytest.approx(-3 / 13**0.5), 0.25),
        Scores(2, 1, pytest.approx(2 / 13**0.5), 0.25),
        Scores(0, 0, None, 0.25),
        Scores(5, 2.5, pytest.approx(3 / 13**0.5), 0.25),
    ]


def test_the_mean_of_the_cosines_counts_by_examples(a_round):
    a_round.begin_with({"w": np.zeros(2)})
    a_round.receive({"w": np.array([1.0, 0])}, num_examples=3)
    a_round.receive({"w": np.array([0, 1.0])}, num_examples=4)

    report = a_round.aggregate(find_strategy("FedAvg", {"scores": True}))

    assert [scores.cosine for scores in report.scores.values()] == pytest.approx([3 / 5, 4 / 5])


@pytest.mark.parametrize("name", ["Krum", "RFA", "CenteredClipping"])
def test_from_inner_products_the_scores_are_the_same(a_round, strategy_named, name):
    """They come from the matrix of inner products there, and one pass over the mean elsewhere."""
    receive_deltas(a_round, np.random.default_rng(4).standard_normal((6, 4)))

    ours = a_round.aggregate(strategy_named(name)).scores.values()
    others = a_round.aggregate(find_strategy("FedAvg", {"scores": True})).scores.values()

    for one, other in zip(ours, others, strict=True):
        assert (one.norm, one.relative_norm, one.cosine) == pytest.approx(
            (other.norm, other.relative_norm, other.cosine)
        )


def test_scores_take_no_pass_of_their_own(a_round):
    receive_deltas(a_round, [[2, 0, 0, 0], [0, 2, 0, 0]])
    size = sum(update.path.stat().st_size for update in a_round.updates)

    plain = a_round.aggregate(find_strategy("FedAvg", {}))
    scored = a_round.aggregate(find_strategy("FedAvg", {"scores": True}))

    assert (plain.num_bytes_read, scored.num_bytes_read) == (size, size)
    assert plain.scores["00000"] == Scores(weight=0.5)
    assert plain.sha256 == scored.sha256


# screening


@pytest.mark.parametrize(
    ("score", "bound", "deltas", "reason"),
    [
        ("norm", 3, [2, 2, 1, -8, 2], "its norm 8 is above 3"),
        ("relative_norm", 3, [2, 2, 1, -8, 2], "its relative norm 4 is above 3"),
        ("cosine", 0, [2, 2, 1, -4, 2], "its cosine -1 is below 0"),
    ],
)
@pytest.mark.parametrize(("action", "status"), [("reject", "rejected"), ("quarantine", "quarantined")])
def test_what_lies_outside_the_bound_is_left_out(a_round, score, bound, deltas, reason, action, status):
    receive_deltas(a_round, [[delta, 0, 0, 0] for delta in deltas])
    strategy = find_strategy("FedAvg", {"screen": {"score": score, "bound": bound, "action": action}})

    report = a_round.aggregate(strategy)

    left_out = [scores for scores in report.scores.values() if scores.status != "accepted"]
    assert [(scores.status, scores.reason, scores.weight) for scores in left_out] == [(status, reason, None)]
    assert sum(scores.weight or 0 for scores in report.scores.values()) == pytest.approx(1)


def test_the_result_is_that_of_the_others_alone(a_round):
    deltas = np.random.default_rng(4).standard_normal((6, 4)) * [[1], [1], [9], [1], [1], [9]]
    receive_deltas(a_round, deltas)
    kept = [update for number, update in enumerate(a_round.updates) if number not in (2, 5)]

    for name in ("FedAvg", "Median", "RFA"):
        screened = a_round.aggregate(find_strategy(name, {"screen": {"score": "relative_norm", "bound": 3}}))
        assert screened.sha256 == a_round.aggregate(find_strategy(name, {}), updates=kept).sha256


@pytest.mark.parametrize("far", [1e30, 1e200])
@pytest.mark.parametrize("screen", [{"score": "norm", "bound": 100}, {"score": "relative_norm", "bound": 100}])
def test_one_however_far_away_does_not_slip_through(a_round, far, screen):
    receive_deltas(a_round, [[1, 0, 0, 0], [1, 1, 0, 0], [far, far, far, far]])

    report = a_round.aggregate(find_strategy("FedAvg", {"screen": screen}))

    assert [scores.status for scores in report.scores.values()] == ["accepted", "accepted", "rejected"]


def test_where_most_stand_still_who_moves_lies_outside(a_round):
    receive_deltas(a_round, [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])

    report = a_round.aggregate(find_strategy("FedAvg", {"screen": {"score": "relative_norm", "bound": 5}}))

    assert report.scores["00002"].status == "rejected"
    assert report.scores["00002"].reason == "its relative norm is infinite: the median of all norms is 0"


def test_where_too_few_are_left_the_error_says_how_many(a_round):
    receive_deltas(a_round, [[1, 0, 0, 0]] * 4 + [[50, 0, 0, 0]] * 3)
    options = {"num_byzantine": 1, "screen": {"score": "norm", "bound": 5}}

    with pytest.raises(
        AggregationFailed, match=r"^Krum needs 5 updates, and there are 4; left out: 3 \(its norm 50 is above 5\)$"
    ):
        a_round.aggregate(find_strategy("Krum", options))
    with pytest.raises(
        AggregationFailed, match=r"^FedAvg needs 1 update, and there are 0; left out: 7 \(its norm 1 is above 0.5\)$"
    ):
        a_round.aggregate(find_strategy("FedAvg", {"screen": {"score": "norm", "bound": 0.5}}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 0}, "clip is a number above 0, the largest L2 norm of a delta, not 0"),
        ({"clip": "1"}, "clip is a number above 0"),
        ({"clip": True}, "clip is a number above 0"),
        ({"clip": float("inf")}, "clip is a number above 0"),
        ({"scores": 1}, "scores is true or false, not 1"),
        ({"screen": "norm"}, "screen is an object with score, bound"),
        ({"screen": {"score": "norm"}}, "screen is an object with score, bound"),
        ({"screen": {"score": "norm", "bound": 1, "more": 1}}, "screen is an object with score, bound"),
        ({"screen": {"score": "size", "bound": 1}}, "screen.score is one of norm, relative_norm, cosine, not 'size'"),
        ({"screen": {"score": ["norm"], "bound": 1}}, "screen.score is one of"),
        ({"screen": {"score": "norm", "bound": -1}}, "screen.bound of norm is a number from 0 to inf, not -1"),
        ({"screen": {"score": "cosine", "bound": 2}}, "screen.bound of cosine is a number from -1 to 1, not 2"),
        ({"screen": {"score": "norm", "bound": "1"}}, "screen.bound of norm is a number"),
        ({"screen": {"score": "norm", "bound": 1, "action": "drop"}}, "screen.action is one of reject, quarantine"),
        ({"screen": {"score": "norm", "bound": 1, "action": ["reject"]}}, "screen.action is one of reject"),
    ],
)
def test_options_out_of_their_range_are_named(options, message):
    with pytest.raises(InvalidValue, match=message):
        find_strategy("FedAvg", options)
