"""The share of a round in which nobody trains."""

import json

import pytest

from folkmoot.demo.timing import Timing, idle_seconds, said, timings


@pytest.mark.parametrize(
    ("busy", "idle"),
    [
        ([], 10),
        ([(0, 10)], 0),
        ([(2, 5)], 7),
        ([(2, 5), (4, 6)], 6),
        ([(4, 6), (2, 9)], 3),
        ([(2, 5), (7, 8)], 6),
        ([(-5, 1), (9, 20)], 8),
        ([(-5, 20)], 0),
        ([(-5, -1), (11, 12)], 10),
    ],
)
def test_the_idle_part_of_a_window_is_what_no_interval_covers(busy, idle):
    assert idle_seconds((0, 10), busy) == idle


def test_a_round_lasts_until_the_next_one_opens_and_the_last_one_until_it_is_closed(tmp_path):
    rounds = [
        {"opened_at": "1970-01-01T00:00:10+00:00", "closed_at": "1970-01-01T00:00:14+00:00"},
        {"opened_at": "1970-01-01T00:00:15+00:00", "closed_at": "1970-01-01T00:00:18+00:00"},
    ]
    outputs = [tmp_path / "one", tmp_path / "two"]
    outputs[0].write_text(words(("ready", 1), ("training", 11), ("trained", 13), ("training", 16), ("trained", 17)))
    outputs[1].write_text(words(("ready", 1), ("training", 12), ("trained", 14), ("training", 16), ("trained", 17)))

    assert timings(rounds, outputs) == [Timing(total=5, idle=2), Timing(total=3, idle=2)]


def test_a_line_that_is_still_being_written_does_not_count(tmp_path):
    output = tmp_path / "output"
    output.write_text(words(("ready", 1)) + '{"event": "trai')

    assert said(output) == [{"event": "ready", "at": 1}]


def words(*events):
    return "".join(json.dumps({"event": event, "at": at}) + "\n" for event, at in events)
