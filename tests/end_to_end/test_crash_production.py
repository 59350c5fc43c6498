"""R1 and R2 on many machines: web process, workers and beat are killed at every point of a round.

One training sees many kills, each process started anew dying at the next point: what a kill costs is one start.
"""

from __future__ import annotations

import pytest
from disturbing import as_if_nothing_had_been, die_at_each
from harness import Observer, Participants

# A start of a worker takes seconds, and on a busy machine many.
pytestmark = pytest.mark.timeout(300)

OF_ASKING = (
    "round_opened.claimed",
    "round_opened.before_notify",
    "round_opened.handled",
    "test_opened.claimed",
    "test_opened.before_notify",
    "test_opened.handled",
)
OF_AGGREGATING = (
    "round_full.claimed",
    "round_full.loaded:2",
    "round_full.summed",
    "round_full.blob_written",
    "round_full.before_commit",
    "round_full.after_commit",
    "round_full.handled",
    "training_finished.claimed",
    "training_finished.handled",
)
OF_REQUESTS = (
    "upload.before_stream",
    "upload.mid_stream",
    "upload.after_blob",
    "upload.before_commit",
    "upload.after_commit",
    "upload.before_response",
    "metrics.before_commit",
    "metrics.after_commit",
    "message.before_sending",
    "message.sent",
)
OF_KEEPING_TIME = ("sweep.begun", "sweep.done", "message.before_sending", "message.sent")


@pytest.mark.parametrize("points", [OF_ASKING, OF_AGGREGATING], ids=["asking", "aggregating"])
def test_workers_killed_at_every_point_cost_nothing_but_time(production, points, undisturbed):
    with as_if_nothing_had_been(production, undisturbed) as training_id:
        production.start(training_id)
        die_at_each(production.worker, points)


def test_a_web_process_killed_at_every_point_costs_nothing_but_time(production, undisturbed):
    with as_if_nothing_had_been(production, undisturbed) as training_id:
        for point in ("start.before_commit", "start.after_commit"):
            production.server.kill_and_start(fault=point)
            production.start_on_a_dying_server(training_id)
            production.server.wait_for_death()
        die_at_each(production.server, OF_REQUESTS)


def test_a_beat_killed_at_every_point_keeps_the_deadlines_once_it_is_back(production, undisturbed):
    ann, ben = production.participants(2)
    options = {"min_updates": 1, "round_timeout": 1, "tests": "never"}
    training_id = production.create_training([ann, ben], rounds=2, **options)
    with Participants(production, [ann]), Observer(production, training_id):
        production.start(training_id)
        die_at_each(production.beat, OF_KEEPING_TIME)
        training = production.wait_for_end(training_id)

    assert production.weights(training_id)[1] == undisturbed(1, 2)
    assert [each["arrived"] for each in training["rounds"]] == [[ann.id]] * 2
