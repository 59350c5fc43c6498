"""A participant at work, with a hub that does what hubs and networks do on a bad day."""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from folkmoot.client import Declined, Hub, Participant, Task
from folkmoot.errors import InvalidInput, Misconfigured, NotAuthenticated
from folkmoot.protocol import paths
from folkmoot.tensors import TensorFile, write_tensors
from folkmoot.tensors.schema import BFLOAT16
from folkmoot.uncertainty import ClassStatistics, from_json

TOKEN = "ab" * 20
MODEL = {"layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "layer.steps": np.array([7], np.int64)}


@pytest.fixture
def model_bytes(tmp_path):
    write_tensors(tmp_path / "model", MODEL)
    return (tmp_path / "model").read_bytes()


@pytest.fixture
def app(scripted):
    """Stops when the script has come to its end; pauses between attempts take no time."""
    participant = Participant(Hub(scripted.url, TOKEN), draw=lambda: 0.0)
    scripted.when_out_of_words = participant.stop
    return participant


@pytest.fixture
def trained(app):
    """The tasks that the participant has trained for: it adds one to every weight."""
    tasks = []

    @app.train
    def train(weights, task):
        tasks.append(task)
        weights["layer.weight"] += 1
        return weights, 12, {"loss": 0.5}

    return tasks


def asks(number, kind, training="t", round=0, model="m", attempt=1, **body):
    body |= {"round": round, "attempt": attempt, "global_model_uuid": model, "local": {"epochs": 3}}
    return {"id": number, "notification_type": kind, "training_uuid": training, "body": body, "created_at": ""}


def ask_to_train(number=1, **details):
    return asks(number, "UPDATE_ROUND_START", **details)


def ask_to_test(number=1, **details):
    return asks(number, "MODEL_TEST_ROUND", **details)


@pytest.fixture
def polls(scripted, answer):
    """Script the answers to the polls: each a list of notifications."""

    def script(*batches):
        for batch in batches:
            last_id = batch[-1]["id"] if batch else 0
            scripted.on("GET", paths.NOTIFICATIONS, answer(200, {"notifications": batch, "last_id": last_id}))

    return script


@pytest.fixture
def serves_model(scripted, answer, model_bytes):
    scripted.on("GET", paths.model("m"), *[answer(200, model_bytes, {"ETag": '"1"'})] * 9)


@pytest.fixture
def takes_updates(scripted, answer):
    scripted.on("PUT", paths.model_update("m"), *[answer(201, {"detail": "", "update_id": "u"})] * 9)


def updates(scripted):
    return scripted.received("PUT", paths.model_update("m"))


def tensors_of(request, tmp_path):
    path = tmp_path / "received"
    path.write_bytes(request.files["model_file"])
    return TensorFile.open(path)


def test_it_trains_on_a_copy_of_the_model_and_sends_the_update(
    app, trained, scripted, polls, serves_model, takes_updates, tmp_path
):
    polls([ask_to_train(round=4)])

    app.run()

    (update,) = updates(scripted)
    assert trained == [Task("t", "m", 4, {"epochs": 3})]
    assert update.fields["round"] == ["4"]
    assert update.fields["sample_size"] == ["12"]
    assert update.fields["metric_names"] == ["loss"]
    assert update.headers["X-Content-SHA256"] == hashlib.sha256(update.files["model_file"]).hexdigest()
    tensors = tensors_of(update, tmp_path)
    assert tensors.is_canonical
    np.testing.assert_array_equal(tensors["layer.weight"], MODEL["layer.weight"] + 1)
    np.testing.assert_array_equal(tensors["layer.steps"], [7])


def test_it_first_asks_for_all_that_is_to_do_and_then_for_what_came_later(app, trained, scripted, polls):
    polls([asks(41, "TRAINING_START")], [asks(42, "TRAINING_FINISHED")])

    app.run()

    asked = [poll.query.get("after") for poll in scripted.received("GET", paths.NOTIFICATIONS)]
    assert asked == [None, ["41"], ["42"]]


def test_the_same_notification_twice_never_trains_twice(app, trained, scripted, polls, serves_model, takes_updates):
    polls([ask_to_train(1)], [ask_to_train(1)], [ask_to_train(2)])

    app.run()

    assert len(trained) == 1
    assert len(updates(scripted)) == 1


def test_a_round_is_not_trained_again_for_another_attempt_once_its_update_is_taken(
    app, trained, polls, serves_model, takes_updates
):
    polls([ask_to_train(1)], [ask_to_train(2, attempt=2)])

    app.run()

    assert len(trained) == 1


def test_a_round_is_trained_again_if_the_hub_rejects_the_update_that_it_had(
    app, trained, scripted, polls, serves_model, takes_updates
):
    again = {"attempt": 2, "rejected": "update u is damaged: its file is gone"}
    polls([ask_to_train(1)], [ask_to_train(2, **again)], [ask_to_train(3, **again)])

    app.run()

    assert [(task.attempt, task.rejected) for task in trained] == [(1, ""), (2, again["rejected"])]
    assert len(updates(scripted)) == 2


def test_a_round_that_refused_an_update_is_trained_again_for_its_next_attempt(
    app, trained, scripted, polls, serves_model, answer
):
    scripted.on("PUT", paths.model_update("m"), answer(400, {"detail": "because", "code": "non_finite"}))
    scripted.on("PUT", paths.model_update("m"), answer(201, {"detail": "", "update_id": "u"}))
    polls([ask_to_train(1)], [ask_to_train(2, attempt=2)])

    app.run()

    assert [task.attempt for task in trained] == [1, 2]


def test_each_round_of_each_training_is_trained(app, trained, polls, serves_model, takes_updates):
    polls([ask_to_train(1), ask_to_train(2, training="other")], [ask_to_train(3, round=1)])

    app.run()

    assert [(task.training_id, task.round) for task in trained] == [("t", 0), ("other", 0), ("t", 1)]


def test_no_round_waits_for_the_participants_disk(
    app, scripted, polls, serves_model, takes_updates, tmp_path, monkeypatch
):
    """Nothing that it writes is wanted once it has ended."""
    app.train(lambda weights, task: ({**weights, "layer.weight": np.full((2, 3), task.round)}, 1, {}))
    polls([ask_to_train(1)], [ask_to_train(2, round=1)])
    synced, taken_over = [], []
    replace = Path.replace
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(Path, "replace", lambda self, new: (taken_over.append(new.exists()), replace(self, new))[1])

    app.run()

    assert [tensors_of(each, tmp_path)["layer.weight"][0, 0] for each in updates(scripted)] == [0, 1]
    assert synced == []
    assert len(taken_over) == 4
    assert not any(taken_over)


def test_rounds_that_were_overtaken_are_not_trained(app, trained, polls, serves_model, takes_updates):
    polls([ask_to_train(number, round=number) for number in range(3)])

    app.run()

    assert [task.round for task in trained] == [2]


def test_what_is_left_of_a_batch_is_done_in_its_order(app, scripted, polls, serves_model, takes_updates, answer):
    done = []
    app.train(lambda weights, task: (weights, done.append(("train", task.round)) or 1, {}))
    app.evaluate(lambda weights, task: (done.append(("test", task.round)) or 1, {}))
    polls([ask_to_train(1), ask_to_test(2, round=1), ask_to_train(3, round=1)])
    scripted.on("POST", paths.model_metrics("m"), answer(201, {"detail": ""}))

    app.run()

    assert done == [("test", 1), ("train", 1)]


@pytest.mark.parametrize("end", ["TRAINING_FINISHED", "CLIENT_REMOVED"])
def test_a_training_that_is_over_is_not_trained_for(app, trained, polls, serves_model, takes_updates, end):
    polls([ask_to_train(1), ask_to_train(2, training="other"), asks(3, end)])

    app.run()

    assert [task.training_id for task in trained] == ["other"]


def test_an_answer_that_is_lost_makes_it_send_the_same_bytes_again(
    app, trained, scripted, polls, serves_model, answer, lost
):
    polls([ask_to_train()])
    scripted.on("PUT", paths.model_update("m"), lost, lost, answer(200, {"detail": "", "update_id": "u"}))

    app.run()

    bodies = {update.files["model_file"] for update in updates(scripted)}
    assert (len(trained), len(updates(scripted)), len(bodies)) == (1, 3, 1)


def test_a_hub_that_is_too_busy_is_asked_again(app, trained, scripted, polls, serves_model, answer):
    polls([ask_to_train()])
    busy = answer(503, {"detail": "too busy", "code": "unavailable"}, {"Retry-After": "0"})
    scripted.on("PUT", paths.model_update("m"), busy, answer(201, {"update_id": "u"}))

    app.run()

    assert len(trained) == 1
    assert len(updates(scripted)) == 2


def test_a_model_that_is_cut_on_its_way_is_fetched_again(
    app, trained, scripted, polls, takes_updates, answer, model_bytes
):
    polls([ask_to_train()])
    scripted.on("GET", paths.model("m"), answer(200, model_bytes, cut=len(model_bytes) // 2), answer(200, model_bytes))

    app.run()

    assert len(trained) == 1
    assert len(updates(scripted)) == 1


def test_it_goes_on_when_the_hub_restarts_while_it_waits(
    app, trained, scripted, polls, serves_model, takes_updates, lost
):
    polls([ask_to_train(1)])
    scripted.on("GET", paths.NOTIFICATIONS, lost)
    polls([ask_to_train(2, round=1)])

    app.run()

    assert [task.round for task in trained] == [0, 1]
    asked = [poll.query.get("after") for poll in scripted.received("GET", paths.NOTIFICATIONS)]
    assert asked == [None, ["1"], ["1"], ["2"]]


def test_it_waits_for_a_hub_that_is_not_up_yet(hub_at, answer):
    closed = hub_at()
    closed.hang_up()

    def open_it_again():
        hub = hub_at(closed.server_port)
        hub.when_out_of_words = app.stop
        hub.on("GET", paths.NOTIFICATIONS, answer(200, {"notifications": [], "last_id": 0}))
        hubs.append(hub)
        return 0.0

    hubs = []
    app = Participant(Hub(closed.url, TOKEN), draw=open_it_again)
    app.train(lambda weights, task: (weights, 1, {}))

    app.run()

    assert len(hubs) == 1
    assert len(hubs[0].received("GET", paths.NOTIFICATIONS)) == 2


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "round_closed"),
        (400, "round_not_open"),
        (400, "wrong_state"),
        (409, "already_submitted"),
        (403, "permission_denied"),
        (404, "not_found"),
        (400, "non_finite"),
        (400, "schema_mismatch"),
    ],
)
def test_a_refusal_is_logged_and_the_next_round_is_trained(
    app, trained, scripted, polls, serves_model, answer, caplog, status, code
):
    scripted.on("PUT", paths.model_update("m"), answer(status, {"detail": "because", "code": code}))
    scripted.on("PUT", paths.model_update("m"), answer(201, {"detail": "", "update_id": "u"}))
    polls([ask_to_train(1)], [ask_to_train(1)], [ask_to_train(2, round=1)])

    app.run()

    assert [task.round for task in trained] == [0, 1]
    assert "round 0: not taken: because" in caplog.text


def test_a_refusal_of_the_users_own_update_is_an_error_in_the_log(
    app, trained, scripted, polls, serves_model, answer, caplog
):
    polls([ask_to_train()])
    scripted.on("PUT", paths.model_update("m"), answer(400, {"detail": "NaN in layer.weight", "code": "non_finite"}))

    app.run()

    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "NaN in layer.weight" in record.getMessage()


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (
            {"layer.weight": np.zeros((2, 4)), "layer.steps": MODEL["layer.steps"]},
            "layer.weight is (2, 4), expected (2, 3)",
        ),
        ({"layer.weight": MODEL["layer.weight"]}, "layer.steps is missing"),
        ({**MODEL, "extra": np.zeros(1)}, "extra is not in the model"),
        ({**MODEL, "layer.steps": np.array([7.5])}, "layer.steps is F64, expected I64"),
    ],
)
def test_an_update_that_does_not_fit_is_not_sent_and_the_log_names_the_tensor(
    app, scripted, polls, serves_model, caplog, returned, said
):
    app.train(lambda weights, task: (returned, 1, {}))
    polls([ask_to_train()])

    app.run()

    assert said in caplog.text
    assert updates(scripted) == []


def test_floats_are_sent_in_the_dtypes_of_the_model(app, scripted, polls, serves_model, takes_updates, tmp_path):
    app.train(lambda weights, task: ({**weights, "layer.weight": np.full((2, 3), 0.1)}, 1, {}))
    polls([ask_to_train()])

    app.run()

    tensors = tensors_of(updates(scripted)[0], tmp_path)
    np.testing.assert_array_equal(tensors["layer.weight"], np.full((2, 3), 0.1, np.float32))


def test_a_model_in_another_format_is_trained_as_well(app, trained, scripted, polls, takes_updates, answer, tmp_path):
    as_npz = BytesIO()
    np.savez(as_npz, **MODEL)
    scripted.on("GET", paths.model("m"), answer(200, as_npz.getvalue()))
    polls([ask_to_train()])

    app.run()

    np.testing.assert_array_equal(tensors_of(updates(scripted)[0], tmp_path)["layer.weight"], MODEL["layer.weight"] + 1)


def test_a_model_that_it_has_is_not_sent_again(app, trained, scripted, polls, takes_updates, answer, model_bytes):
    polls([ask_to_train(1)], [ask_to_train(2, round=1)])
    scripted.on("GET", paths.model("m"), answer(200, model_bytes, {"ETag": '"1"'}), answer(304, b""))

    app.run()

    downloads = scripted.received("GET", paths.model("m"))
    assert [download.headers["If-None-Match"] for download in downloads] == [None, '"1"']
    assert len(updates(scripted)) == 2


def test_another_model_is_fetched_whole(
    app, trained, scripted, polls, serves_model, takes_updates, answer, model_bytes
):
    polls([ask_to_train(1)], [ask_to_train(2, training="other", model="n")])
    scripted.on("GET", paths.model("n"), answer(200, model_bytes))
    scripted.on("PUT", paths.model_update("n"), answer(201, {"update_id": "v"}))

    app.run()

    assert scripted.received("GET", paths.model("n"))[0].headers["If-None-Match"] is None


def test_where_the_model_may_have_moved_on_it_is_asked_for_as_the_round_began_with_it(
    app, trained, scripted, polls, serves_model, takes_updates
):
    polls([ask_to_train(1, round=2, checkpoint=2)], [ask_to_train(2, round=3)])

    app.run()

    asked = [download.query.get("round") for download in scripted.received("GET", paths.model("m"))]
    assert asked == [["2"], None]


@pytest.fixture
def two_rounds_of_exchange(scripted, polls, takes_updates, answer, model_bytes, tmp_path):
    """The first download is the whole model, the second only the counter, which alone travels."""
    write_tensors(tmp_path / "exchanged", {"layer.steps": np.array([8])})
    exchanged = (tmp_path / "exchanged").read_bytes()
    scripted.on("GET", paths.model("m"), answer(200, model_bytes, {"ETag": '"1"'}), answer(200, exchanged))
    polls([ask_to_train(1, exchange=["*.steps"])], [ask_to_train(2, round=1, exchange=["*.steps"])])


def test_only_the_tensors_that_travel_are_sent(app, trained, scripted, two_rounds_of_exchange, tmp_path):
    app.run()

    assert [list(tensors_of(update, tmp_path)) for update in updates(scripted)] == [["layer.steps"]] * 2
    assert trained[0].exchange == ("*.steps",)


def test_a_training_function_may_return_just_the_tensors_that_travel(app, scripted, two_rounds_of_exchange, tmp_path):
    app.train(lambda weights, task: ({"layer.steps": weights["layer.steps"] + 1}, 1, {}))

    app.run()

    assert tensors_of(updates(scripted)[1], tmp_path)["layer.steps"].tolist() == [9]


def test_what_does_not_travel_is_downloaded_once(app, scripted, two_rounds_of_exchange):
    seen = []

    @app.train
    def train(weights, task):
        seen.append({name: weights[name].tolist() for name in weights})
        return weights, 1, {}

    app.run()

    downloads = scripted.received("GET", paths.model("m"))
    assert [download.query.get("part") for download in downloads] == [None, ["exchange"]]
    whole = {name: MODEL[name].tolist() for name in MODEL}
    assert seen == [whole, whole | {"layer.steps": [8]}]


def test_a_bfloat16_model_is_trained_as_float32_and_sent_as_bfloat16(
    app, scripted, polls, takes_updates, answer, tmp_path
):
    write_tensors(tmp_path / "model", {"w": np.ones(2, BFLOAT16)})
    scripted.on("GET", paths.model("m"), answer(200, (tmp_path / "model").read_bytes()))
    polls([ask_to_train()])

    @app.train
    def train(weights, task):
        assert weights["w"].dtype == np.float32
        return {"w": weights["w"] * 1.001}, 1, {}

    app.run()

    sent = tensors_of(updates(scripted)[0], tmp_path)["w"]
    assert sent.dtype == BFLOAT16
    assert sent.astype("f4").tolist() == [1, 1]


def test_it_evaluates_and_reports(app, trained, scripted, polls, serves_model, answer):
    @app.evaluate
    def evaluate(weights, task):
        return 4, {"accuracy": float(weights["layer.weight"].mean() / 10)}

    polls([ask_to_test(round=1)], [ask_to_test(round=1)])
    scripted.on("POST", paths.model_metrics("m"), answer(201, {"detail": ""}))

    app.run()

    (report,) = scripted.received("POST", paths.model_metrics("m"))
    assert report.fields == {
        "metric_names": ["accuracy", "num_examples"],
        "metric_values": ["0.25", "4.0"],
        "round": ["1"],
    }


STATISTICS = ClassStatistics.of([[0.9, 0.1], [0.4, 0.6]], [0, 0])


def test_calibration_statistics_of_an_evaluation_go_first(app, trained, scripted, polls, serves_model, answer):
    app.evaluate(lambda weights, task: (2, {"accuracy": 0.5}, STATISTICS))
    polls([ask_to_test(round=3)], [ask_to_test(round=3)])
    scripted.on("POST", paths.model_calibration("m"), answer(201, {"detail": ""}))
    scripted.on("POST", paths.model_metrics("m"), answer(201, {"detail": ""}))

    app.run()

    calibration, metrics = [each for each in scripted.requests if each.method == "POST"]
    assert (calibration.path, metrics.path) == (paths.model_calibration("m"), paths.model_metrics("m"))
    sent = json.loads(calibration.body)
    assert (sent["round"], from_json(sent["statistics"])) == (3, STATISTICS)
    assert metrics.fields["metric_names"] == ["accuracy", "num_examples"]


def test_an_evaluation_may_have_none(app, trained, scripted, polls, serves_model, answer):
    app.evaluate(lambda weights, task: (2, {"accuracy": 0.5}, None))
    polls([ask_to_test(round=1)])
    scripted.on("POST", paths.model_metrics("m"), answer(201, {"detail": ""}))

    app.run()

    assert scripted.received("POST", paths.model_calibration("m")) == []
    assert len(scripted.received("POST", paths.model_metrics("m"))) == 1


@pytest.mark.parametrize(("status", "code"), [(400, "invalid_value"), (404, "not_found"), (409, "already_submitted")])
def test_the_test_goes_on_where_the_hub_takes_no_statistics(
    app, trained, scripted, polls, serves_model, answer, caplog, status, code
):
    app.evaluate(lambda weights, task: (2, {}, STATISTICS))
    polls([ask_to_test(round=1)])
    scripted.on("POST", paths.model_calibration("m"), answer(status, {"detail": "because", "code": code}))
    scripted.on("POST", paths.model_metrics("m"), answer(201, {"detail": ""}))

    app.run()

    assert len(scripted.received("POST", paths.model_metrics("m"))) == 1
    assert "round 1: calibration statistics not taken: because" in caplog.messages


def test_without_an_evaluation_it_lets_the_round_go_on(app, trained, scripted, polls, answer):
    polls([ask_to_test(round=1)])
    scripted.on("POST", paths.model_metrics("m"), answer(201, {"detail": ""}))

    app.run()

    (report,) = scripted.received("POST", paths.model_metrics("m"))
    assert report.fields == {"metric_names": ["num_examples"], "metric_values": ["0.0"], "round": ["1"]}
    assert scripted.received("GET", paths.model("m")) == []


def test_it_sends_both_moments_in_a_swag_round(app, trained, scripted, polls, serves_model, answer, tmp_path):
    @app.swag
    def swag(weights, task):
        flat = weights["layer.weight"].ravel()
        return flat, flat**2, 8

    polls([asks(1, "SWAG_ROUND_START", round=1)], [asks(1, "SWAG_ROUND_START", round=1)])
    scripted.on("POST", paths.model_swag("m"), answer(201, {"detail": ""}))

    app.run()

    (sent,) = scripted.received("POST", paths.model_swag("m"))
    assert sent.fields == {"round": ["1"], "sample_size": ["8"]}
    moments = []
    for name in ("first_moment_file", "second_moment_file"):
        (tmp_path / name).write_bytes(sent.files[name])
        moments.append(TensorFile.open(tmp_path / name)["moment"].tolist())
    assert moments == [[0, 1, 2, 3, 4, 5], [0, 1, 4, 9, 16, 25]]


def test_without_moments_it_lets_the_round_go_on(app, trained, scripted, polls, answer):
    polls([asks(1, "SWAG_ROUND_START", round=1)])
    scripted.on("POST", paths.model_swag("m"), answer(201, {"detail": ""}))

    app.run()

    (sent,) = scripted.received("POST", paths.model_swag("m"))
    assert sent.fields == {"round": ["1"], "sample_size": ["0"]}
    assert scripted.received("GET", paths.model("m")) == []


def test_moments_that_are_not_taken_do_not_end_the_run(app, trained, scripted, polls, answer):
    polls([asks(1, "SWAG_ROUND_START", round=1)])
    scripted.on("POST", paths.model_swag("m"), answer(404, {"detail": "No such path.", "code": "not_found"}))

    app.run()

    assert len(scripted.received("POST", paths.model_swag("m"))) == 1


def test_it_trains_and_answers_the_local_model_that_it_was_sent(app, trained, scripted, polls, answer, model_bytes):
    scripted.on("GET", paths.model("local"), answer(200, model_bytes, {"ETag": '"2"'}))
    scripted.on("PUT", paths.model_update("local"), answer(201, {"detail": "", "update_id": "u"}))
    polls([ask_to_train(round=1, model="local")])

    app.run()

    assert [task.model_id for task in trained] == ["local"]
    assert len(scripted.received("PUT", paths.model_update("local"))) == 1


def test_an_exception_of_the_users_own_ends_the_run_with_a_line_in_the_log(app, scripted, polls, serves_model, caplog):
    @app.train
    def train(weights, task):
        raise ZeroDivisionError("no examples")

    polls([ask_to_train(round=2)])

    with pytest.raises(ZeroDivisionError):
        app.run()

    assert "round 2: the participant's own function failed" in caplog.text
    assert updates(scripted) == []


def test_an_error_of_ours_raised_by_the_users_function_is_the_users(app, scripted, polls, serves_model):
    @app.train
    def train(weights, task):
        raise InvalidInput("where are the examples?")

    polls([ask_to_train()])

    with pytest.raises(InvalidInput):
        app.run()


def test_a_token_that_the_hub_does_not_know_ends_the_run(app, trained, scripted, answer):
    scripted.on("GET", paths.NOTIFICATIONS, answer(401, {"detail": "Invalid token.", "code": "not_authenticated"}))

    with pytest.raises(NotAuthenticated):
        app.run()


def test_progress_is_one_line_for_each_thing(app, trained, polls, serves_model, takes_updates, caplog):
    caplog.set_level(logging.INFO, "folkmoot.client")
    polls([ask_to_train(round=3)])

    app.run()

    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "round 3: training"
    assert lines[1].startswith("round 3: update sent (0.0 MB, ")


def test_stop_ends_a_wait_at_once(app, trained, scripted):
    started = time.monotonic()

    app.run()  # the first poll stops it, and is never answered

    assert time.monotonic() - started < 1
    assert len(scripted.requests) == 1


def test_stop_ends_a_pause_at_once(scripted, answer):
    app = Participant(Hub(scripted.url, TOKEN))
    app.train(lambda weights, task: (weights, 1, {}))
    for_an_hour = answer(503, {"detail": ""}, {"Retry-After": "3600"})
    scripted.on("GET", paths.NOTIFICATIONS, for_an_hour)
    threading.Timer(0.2, app.stop).start()
    started = time.monotonic()

    app.run()

    assert time.monotonic() - started < 1


def test_a_task_in_hand_is_finished_before_it_stops(app, scripted, polls, serves_model, takes_updates):
    @app.train
    def train(weights, task):
        app.stop()
        return weights, 1, {}

    polls([ask_to_train()])

    app.run()

    assert len(updates(scripted)) == 1


def test_without_a_function_to_train_with_there_is_nothing_to_run(app):
    with pytest.raises(Misconfigured, match=r"@app\.train"):
        app.run()


@pytest.mark.parametrize("missing", ["FOLKMOOT_URL", "FOLKMOOT_TOKEN"])
def test_a_missing_setting_is_named(monkeypatch, missing):
    monkeypatch.setenv("FOLKMOOT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("FOLKMOOT_TOKEN", TOKEN)
    monkeypatch.delenv(missing)

    with pytest.raises(Misconfigured, match=missing):
        Participant.from_env()


PROGRAM = """
from folkmoot.client import Participant
app = Participant.from_env()
app.train(lambda weights, task: (weights, 1, {}))
app.run()
"""


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 0), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_ends_a_waiting_program_within_a_second(scripted, number, exit_code):
    waiting = threading.Event()
    scripted.when_out_of_words = waiting.set
    environment = os.environ | {"FOLKMOOT_URL": scripted.url, "FOLKMOOT_TOKEN": TOKEN}
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stderr=subprocess.DEVNULL)
    try:
        assert waiting.wait(20)
        started = time.monotonic()
        program.send_signal(number)
        assert program.wait(20) == exit_code
        assert time.monotonic() - started < 1.5
    finally:
        program.kill()


# What a strategy has travel beside the model


@pytest.fixture
def corrected(app):
    """What the training function saw of the hub's control variates; it sends twice these back."""
    seen = []

    @app.train
    def train(weights, task):
        server = task.state("control_variate", like=weights)
        seen.append(server)
        return {**weights, **{f"control_variate/{name}": 2.0 * each for name, each in server.items()}}, 1, {}

    return seen


def test_before_the_first_round_the_state_is_zeros_for_every_float_tensor(
    app, corrected, scripted, polls, takes_updates, answer, model_bytes, tmp_path
):
    none = answer(404, {"detail": "Model m has no state after 0 rounds.", "code": "not_found"})
    scripted.on("GET", paths.model("m"), answer(200, model_bytes), none)
    polls([ask_to_train()])

    app.run()

    ((name, zeros),) = corrected[0].items()
    assert (name, zeros.dtype, zeros.tolist()) == ("layer.weight", np.float32, [[0, 0, 0], [0, 0, 0]])
    assert sorted(tensors_of(updates(scripted)[0], tmp_path)) == [
        "control_variate/layer.weight",
        "layer.steps",
        "layer.weight",
    ]


def test_the_state_is_that_of_the_round_and_what_is_made_of_it_goes_back_in_the_models_dtype(
    app, corrected, scripted, polls, takes_updates, answer, model_bytes, tmp_path
):
    write_tensors(tmp_path / "state", {"control_variate/layer.weight": np.full((2, 3), 1.5, np.float32)})
    state = answer(200, (tmp_path / "state").read_bytes())
    scripted.on("GET", paths.model("m"), answer(200, model_bytes), state)
    polls([ask_to_train(round=4)])

    app.run()

    assert corrected[0]["layer.weight"].tolist() == [[1.5] * 3] * 2
    asked = scripted.received("GET", paths.model("m"))[1].query
    assert asked == {"part": ["state"], "round": ["4"], "as": ["safetensors"]}
    sent = tensors_of(updates(scripted)[0], tmp_path)["control_variate/layer.weight"]
    assert (sent.dtype, sent.tolist()) == (np.float32, [[3.0] * 3] * 2)


def test_what_goes_beside_tensors_that_do_not_travel_is_left_out(
    app, scripted, polls, takes_updates, answer, model_bytes, tmp_path
):
    scripted.on("GET", paths.model("m"), answer(200, model_bytes))
    polls([ask_to_train(exchange=["*.steps"])])

    @app.train
    def train(weights, task):
        return {**weights, "control_variate/layer.weight": weights["layer.weight"]}, 1, {}

    app.run()

    assert sorted(tensors_of(updates(scripted)[0], tmp_path)) == ["layer.steps"]


# What it says on the side


PROGRESS = paths.training_progress("t")


def said(scripted):
    reports = [json.loads(request.body) for request in scripted.received("POST", PROGRESS)]
    return [(each["state"], each["percent"], each["reason"]) for each in reports]


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_says_what_it_is_doing(app, scripted, answer, polls, serves_model, takes_updates):
    scripted.on("POST", PROGRESS, *[answer(204, None)] * 9)

    @app.train
    def train(weights, task):
        wait_until(lambda: said(scripted))
        task.progress(40.5)
        task.progress(41)  # at once: nobody wants to know it so exactly
        task.progress(float("nan"))
        return weights, 1, {}

    polls([ask_to_train()])
    app.run()

    assert said(scripted) == [("training", None, ""), ("training", 40.5, "")]
    assert len(updates(scripted)) == 1


def test_of_work_that_takes_a_moment_it_says_nothing(
    app, trained, scripted, answer, polls, serves_model, takes_updates
):
    scripted.on("POST", PROGRESS, *[answer(204, None)] * 9)
    polls([ask_to_train()], [ask_to_train(2, round=1)])

    app.run()

    assert len(updates(scripted)) == 2
    assert said(scripted) == []


def test_it_says_why_it_failed(app, scripted, answer, polls, serves_model):
    scripted.on("POST", PROGRESS, *[answer(204, None)] * 9)

    @app.train
    def train(weights, task):
        raise ZeroDivisionError("no examples" * 1000)

    polls([ask_to_train()])
    with pytest.raises(ZeroDivisionError):
        app.run()

    state, _, reason = said(scripted)[-1]
    assert state == "failed"
    assert reason.startswith("ZeroDivisionError: no examples")
    assert len(reason) == 2000


def test_it_may_decline_a_round_and_is_asked_again(app, scripted, answer, polls, serves_model, takes_updates):
    scripted.on("POST", PROGRESS, *[answer(204, None)] * 9)

    @app.train
    def train(weights, task):
        if task.attempt == 1:
            raise Declined("the scanner is in use")
        return weights, 1, {}

    polls([ask_to_train()], [ask_to_train(2, attempt=2)])
    app.run()

    assert ("declined", None, "the scanner is in use") in said(scripted)
    assert len(updates(scripted)) == 1


@pytest.mark.parametrize("status", [404, 409, 429, 500, 503])
def test_a_hub_that_takes_no_reports_gets_its_update_all_the_same(
    app, scripted, answer, polls, serves_model, takes_updates, status
):
    scripted.on("POST", PROGRESS, *[answer(status, {"detail": "no", "code": "x"})] * 9)

    @app.train
    def train(weights, task):
        if task.attempt == 1:
            raise Declined("the scanner is in use")
        task.progress(50)
        return weights, 1, {}

    polls([ask_to_train()], [ask_to_train(2, attempt=2)])
    app.run()

    assert len(updates(scripted)) == 1
    assert len(said(scripted)) == (1 if status == 404 else 2)


def test_the_hub_learns_which_version_it_is(app, trained, scripted, polls, serves_model, takes_updates):
    polls([ask_to_train()])

    app.run()

    assert scripted.received("GET", paths.NOTIFICATIONS)[0].headers["User-Agent"].startswith("folkmoot")
