"""Trainings that end before their last round, and the checkpoint that was best."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.django_db


def go_through(scene, work, *values, metric="accuracy"):
    """Rounds whose models test as given, None where nobody reports the metric, while there is a round to go through."""
    (participant,) = scene.participants
    first = len(scene.round_states) - 1
    for number, value in enumerate(values, start=first):
        assert scene.send_update(participant, round=number, w=[number + 1, 0]).status_code == 201
        work()
        scene.report(participant, **({"other": 1} if value is None else {metric: value}))
        work()


@pytest.fixture
def make_run(make_scene):
    """A training of one participant for ten rounds."""

    def make(*, metric_names=(), **options):
        return make_scene(participants=1, target_num_updates=10, metric_names=list(metric_names), options=options)

    return make


def end_of(scene):
    shown = scene.shown
    return shown["state"], shown["reason"]


def test_a_training_stops_once_its_goal_is_reached(make_run, work):
    scene = make_run(stop_when={"metric": "accuracy", "goal": 0.9})

    go_through(scene, work, 0.5, 0.7)
    assert scene.state == "O"
    go_through(scene, work, 0.95)

    assert end_of(scene) == ("C", "Stopped early after round 3: accuracy 0.95 has reached the goal of 0.9.")
    assert scene.types_told(scene.participants[0])[-1] == "TRAINING_FINISHED"


def test_a_training_stops_once_its_patience_is_at_an_end(make_run, work):
    scene = make_run(stop_when={"metric": "accuracy", "patience": 3})

    go_through(scene, work, 0.5, 0.91, 0.9, 0.91, 0.7)

    sentence = "Stopped early after round 5: accuracy 0.91 has not improved for 3 rounds; best was round 2."
    assert end_of(scene) == ("C", sentence)


@pytest.mark.parametrize(
    ("stop_when", "values", "rounds"),
    [
        ({"metric": "val_loss", "patience": 2}, (3, 2, 1, 1, 2), 5),
        ({"metric": "val_loss", "goal": 1.5}, (3, 2, 1), 3),
        ({"metric": "val_loss", "goal": 1.5, "mode": "max"}, (3,), 1),
        ({"metric": "accuracy", "patience": 2, "mode": "min"}, (0.1, 0.2, 0.3), 3),
        ({"metric": "accuracy", "patience": 2, "min_delta": 0.1}, (0.5, 0.55, 0.59), 3),
        ({"metric": "accuracy", "patience": 2, "min_delta": 0.1}, (0.5, 0.55, 0.65, 0.7, 0.75), 5),
        ({"metric": "accuracy", "patience": 2}, (0.5, None, None), 3),
        ({"metric": "accuracy", "patience": 2}, (None, None), 2),
    ],
)
def test_what_counts_as_better_is_as_the_options_and_the_name_say(make_run, work, stop_when, values, rounds):
    scene = make_run(stop_when=stop_when)

    go_through(scene, work, *values[:-1], metric=stop_when["metric"])
    assert scene.state == "O"
    go_through(scene, work, values[-1], metric=stop_when["metric"])

    assert (scene.state, len(scene.round_states)) == ("C", rounds)


def test_a_metric_that_nobody_reports_ends_the_patience_with_a_sentence_of_its_own(make_run, work):
    scene = make_run(stop_when={"metric": "accuracy", "patience": 2})

    go_through(scene, work, None, None)

    assert end_of(scene) == ("C", "Stopped early after round 2: accuracy was reported in none of 2 rounds.")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"stop_when": {"metric": "loss", "goal": 1}, "tests": "final"},
            "tests is final: set it to every_round",
        ),
        ({"stop_when": {"metric": "loss", "goal": 1}, "daisy_chain_period": 2}, "options.tests is final"),
        ({"stop_when": {"metric": "loss"}}, "Give a goal, a patience or both."),
        ({"stop_when": {"goal": 1}}, "This field is required."),
        ({"stop_when": {"metric": "loss", "goal": "nan"}}, "A valid number is required."),
        ({"stop_when": {"metric": "loss", "goal": 1, "min_delta": 1}}, "It goes with a patience."),
        ({"stop_when": {"metric": "loss", "patience": 0}}, "greater than or equal to 1"),
        ({"stop_when": {"metric": "loss", "goal": 1, "mode": "best"}}, "is not a valid choice"),
        ({"stop_when": {"metric": "loss", "goal": 1, "when": 1}}, "Unknown field."),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_at_creation(make_model, make_user, as_, options, sentence):
    actor = make_user()
    plan = {"model_id": str(make_model(actor).pk), "target_num_updates": 2, "aggregation_method": "FedAvg"}

    answer = as_(actor).send("POST", "/api/trainings/", plan | {"options": options})

    assert answer.status_code == 400
    assert sentence in answer.content.decode()


# The best checkpoint


def test_the_best_checkpoint_is_asked_for_by_name(make_run, work):
    scene = make_run(stop_when={"metric": "accuracy", "patience": 5})
    go_through(scene, work, 0.5, 0.9, 0.9, 0.7)

    assert scene.weights("best") == scene.weights(2) == [2, 0]
    assert scene.weights("latest") == scene.weights(4)


@pytest.mark.parametrize("metric_names", [["loss"], []])
def test_without_a_wish_the_best_is_by_the_only_metric(make_run, work, metric_names):
    scene = make_run(metric_names=metric_names)
    go_through(scene, work, 3, 1, 2, metric="loss")

    assert scene.weights("best") == scene.weights(2)


def test_of_several_metrics_the_loss_decides(make_run, work):
    scene = make_run()
    go_through(scene, work, 3, 1, 2, None, metric="loss")

    assert scene.weights("best") == scene.weights(2)


def test_where_nothing_says_which_metric_decides_there_is_no_best(make_run, work, as_):
    scene = make_run()
    go_through(scene, work, 0.3, None)

    answer = as_(scene.actor).get(f"/api/models/{scene.model_id}/?round=best")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "accuracy, other were tested; name one in options.stop_when" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/api/models/{}/?round=best", "/api/models/{}/calibration/?round=best"])
def test_of_a_model_that_was_never_tested_there_is_no_best(make_model, as_, path):
    model = make_model()

    answer = as_(model.owner).get(path.format(model.pk))

    assert answer.status_code == 404
    assert answer.json()["detail"] == f"Model {model.pk} has no best checkpoint: no training tests it."


def test_a_question_to_the_best_of_a_model_without_one_is_refused(make_model, as_):
    model = make_model()
    question = {"model_id": str(model.pk), "model_input": [[1, 2]], "round": "best"}

    answer = as_(model.owner).send("POST", "/api/inference/", question)

    assert (answer.status_code, answer.json()["code"]) == (400, "not_found")
    assert "has no best checkpoint" in answer.json()["detail"]
