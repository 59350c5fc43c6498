"""A pause holds a training where it stands; resumed, it ends with the very bits that it would have had without."""

from __future__ import annotations

import io
from datetime import timedelta

import numpy as np
import pytest
import safetensors.numpy
from django.utils import timezone

from folkmoot.server.outbox.events import handle_next_event
from folkmoot.server.outbox.models import Event, Lane
from folkmoot.server.registry.models import Checkpoint, Moments
from folkmoot.server.trainings import lifecycle, rounds, swag, sweeps
from folkmoot.server.trainings.models import Round

pytestmark = pytest.mark.django_db

WITHOUT_PAUSE = []


class Run:
    """Two rounds of FedAdam with SWAG and tests, played by two participants; small whole numbers sum in any order."""

    def __init__(self, scene, as_):
        self.scene = scene
        self._as = as_

    def play(self, *, pause_at=None, until=None):
        """Until nothing is left to be done, or `until` says so; at `pause_at` with a pause in which all play on."""
        while until is None or not until(self):
            if pause_at is not None and pause_at(self):
                pause_at = None
                self._pause()
            if not handle_next_event(Lane.TRAININGS) and not self._answer():
                return

    def _pause(self):
        assert self.scene.command("pause").status_code == 202
        before = self.told, self.scene.round_states
        self.play()
        assert self.scene.state == "P"
        assert (self.told, self.scene.round_states) == before
        assert self.scene.command("resume").status_code == 202

    @property
    def told(self):
        return [self.scene.types_told(participant) for participant in self.scene.participants]

    def _answer(self):
        """Have one participant do what it is asked for; return whether anyone was asked for anything."""
        for number, participant in enumerate(self.scene.participants, start=1):
            for asked in self.scene.asked_of(participant):
                self._do(asked, participant, number)
                return True
        return False

    def _do(self, asked, participant, number):
        round = self.scene.training.rounds.latest("number").number
        match asked:
            case "UPDATE_ROUND_START":
                answer = self.scene.send_update(participant, round=round, w=(number, 4.0 * round + number))
            case "MODEL_TEST_ROUND":
                answer = self.scene.report(participant, loss=number)
            case "SWAG_ROUND_START":
                fields = {"first_moment_file": moment(number), "second_moment_file": moment(number + round)}
                path = f"/api/models/{self.scene.model_id}/swag/"
                answer = self._as(participant).post(path, {"round": round + 1, "sample_size": 1, **fields})
        assert answer.status_code == 201, answer.content

    @property
    def made(self):
        """The digests of all that was made."""
        of_model = {"model": self.scene.model_id}
        checkpoints = Checkpoint.objects.filter(**of_model).values_list("round", "sha256", "state_sha256")
        moments = Moments.objects.filter(checkpoint__model=self.scene.model_id).order_by("checkpoint__round")
        return [*checkpoints, *moments.values_list("sha256", flat=True)]


def moment(value):
    file = io.BytesIO(safetensors.numpy.save({"moment": np.full(2, value, "f4")}))
    file.name = "moment.safetensors"
    return file


@pytest.fixture
def new_run(make_scene, as_):
    def make():
        options = {"aggregation": {"server_learning_rate": 0.5}}
        return Run(
            make_scene(
                started=False,
                aggregation_method="FedAdam",
                uncertainty_method="SWAG",
                target_num_updates=2,
                options=options,
            ),
            as_,
        )

    return make


@pytest.fixture
def undisturbed(new_run):
    """What comes of a run without a pause; played once, since all are alike."""
    if not WITHOUT_PAUSE:
        run = new_run()
        lifecycle.start(run.scene.training, by=run.scene.actor)
        run.play()
        WITHOUT_PAUSE.extend((run.scene.state, run.made, run.told))
    return tuple(WITHOUT_PAUSE)


def is_at(state, *, answers, announced):
    """The instant at which the second round is in this state, with so many answers, and its question asked or not."""

    def look(run):
        current = run.scene.training.rounds.filter(number=1, state=state).first()
        return current is not None and _answers(current) == answers and _is_announced(run.scene.id) == announced

    return look


def _answers(current):
    match current.state:
        case "OPEN":
            return current.updates.count()
        case "SWAG":
            return current.statistics.count()
        case "TESTING":
            return current.training.model.metrics.filter(step=2, phase="test").count()
    return 0


def _is_announced(training_id):
    return not Event.objects.unhandled().filter(subject=training_id).exists()


@pytest.mark.parametrize(
    ("state", "answers", "announced"),
    [
        ("OPEN", 0, False),
        ("OPEN", 0, True),
        ("OPEN", 1, True),
        ("AGGREGATING", 0, False),
        ("SWAG", 0, False),
        ("SWAG", 0, True),
        ("SWAG", 1, True),
        ("MERGING", 0, False),
        ("TESTING", 0, False),
        ("TESTING", 0, True),
        ("TESTING", 1, True),
    ],
)
def test_a_pause_at_any_instant_changes_no_bit(new_run, undisturbed, state, answers, announced):
    run = new_run()
    lifecycle.start(run.scene.training, by=run.scene.actor)
    run.play(pause_at=is_at(state, answers=answers, announced=announced))

    assert Event.objects.filter(kind="training_resumed").exists()
    assert len(run.made) == 5
    assert (run.scene.state, run.made, run.told) == undisturbed


# What is under way as the pause comes


def test_an_aggregation_under_way_keeps_its_result_and_nothing_new_opens(make_scene, meanwhile, work):
    scene = make_scene(aggregation_method="Interrupted", target_num_updates=2, options={"tests": "never"})
    for participant in scene.participants:
        scene.send_update(participant, w=(3, 5))
    meanwhile.append(lambda: scene.command("pause"))

    work()

    assert (scene.state, len(scene.shown["rounds"])) == ("P", 1)
    assert scene.weights(round=1) == [3, 5]
    scene.command("resume")
    assert (scene.state, scene.round_states) == ("O", ["CLOSED", "OPEN"])


def test_a_result_that_comes_twice_in_a_pause_counts_once(make_scene, meanwhile, work):
    scene = make_scene(aggregation_method="Interrupted", options={"tests": "never"})
    for participant in scene.participants:
        scene.send_update(participant, w=(3, 5))
    # What a second worker does, whose lease has run out.
    meanwhile.append(lambda: scene.command("pause"))
    meanwhile.append(work_of_another(scene))

    work()
    scene.command("resume")
    work()

    assert scene.state == "C"
    assert Checkpoint.objects.filter(model=scene.model_id).count() == 2


def work_of_another(scene):
    return lambda: rounds.aggregate(scene.id, 0)


def test_moments_that_are_merged_in_a_pause_are_kept(new_run):
    run = new_run()
    lifecycle.start(run.scene.training, by=run.scene.actor)
    run.play(until=is_at("MERGING", answers=0, announced=False))
    current = run.scene.training.rounds.get(state="MERGING")
    merged, facts = swag._merged(current)
    run.scene.command("pause")

    assert lifecycle.finish_swag(current, merged, facts=facts)
    assert not lifecycle.finish_swag(current, merged, facts=facts)
    assert run.scene.round_states == ["CLOSED", "MERGING"]
    run.scene.command("resume")

    assert run.scene.round_states == ["CLOSED", "TESTING"]


@pytest.mark.parametrize("retries", [0, 2])
def test_a_full_round_is_aggregated_after_a_pause_though_fewer_answered_than_would_suffice_late(
    make_scene, work, retries
):
    scene = make_scene(options={"tests": "never", "min_updates": 3, "round_retries": retries})
    for participant in scene.participants:
        scene.send_update(participant, w=(3, 5))
    scene.command("pause")
    work()

    assert scene.command("resume").status_code == 202
    assert scene.round_states == ["AGGREGATING"]
    work()

    assert (scene.state, scene.weights()) == ("C", [3, 5])


# What comes in a pause


def test_a_round_that_fills_in_a_pause_waits_as_it_is(make_scene, work):
    scene = make_scene()
    scene.command("pause")

    for participant in scene.participants:
        assert scene.send_update(participant).status_code == 201
    work()

    assert (scene.state, scene.round_states, scene.shown["local_models_arrived"]) == ("P", ["OPEN"], 2)
    scene.command("resume")
    assert scene.round_states == ["AGGREGATING"]


def test_in_asynchronous_training_a_full_buffer_waits_for_the_end_of_the_pause(make_scene, work):
    scene = make_scene(aggregation_method="FedBuff", target_num_updates=2, options={"aggregation": {"buffer_size": 1}})
    scene.command("pause")

    assert scene.send_update(scene.participants[0]).status_code == 201
    work()

    assert scene.round_states == ["OPEN"]
    scene.command("resume")
    work()
    assert scene.round_states == ["CLOSED", "OPEN"]


def test_what_a_pause_does_not_take_is_refused_for_its_round(make_scene):
    scene = make_scene()
    scene.command("pause")

    answer = scene.send_update(scene.participants[0], round=1)

    assert (answer.status_code, answer.json()["code"]) == (400, "round_not_open")


def test_participants_come_and_go_in_a_pause(make_scene, make_user, work):
    scene = make_scene(target_num_updates=2, options={"tests": "never"})
    one, other = scene.participants
    scene.send_update(one)
    scene.command("pause")

    assert scene.remove(other).status_code == 200
    assert scene.add(new := make_user()).status_code == 202
    assert scene.round_states == ["OPEN"]
    scene.command("resume")
    work()

    assert scene.round_states == ["CLOSED", "OPEN"]
    assert scene.asked_of(new) == ["UPDATE_ROUND_START"]


def test_a_training_that_everybody_leaves_in_a_pause_fails_when_it_is_resumed(make_scene, work):
    scene = make_scene()
    scene.command("pause")
    scene.remove(*scene.participants)
    assert scene.state == "P"

    scene.command("resume")

    assert scene.state == "E"


def test_a_paused_training_can_be_removed(make_scene, as_):
    scene = make_scene()
    scene.command("pause")

    assert as_(scene.actor).delete(f"/api/trainings/{scene.id}/").status_code == 200


# Deadlines


def test_deadlines_stand_still_in_a_pause(make_scene):
    scene = make_scene(options={"round_timeout": 100, "round_retries": 0})
    scene.command("pause")
    training = scene.training
    # An hour passes.
    training.paused_at -= timedelta(hours=1)
    training.save()
    Round.objects.update(closes_at=timezone.now() - timedelta(hours=1) + timedelta(seconds=100))

    sweeps.close_overdue_rounds()
    assert (scene.state, scene.round_states) == ("P", ["OPEN"])
    scene.command("resume")
    sweeps.close_overdue_rounds()

    assert (scene.state, scene.round_states) == ("O", ["OPEN"])
    left = scene.training.rounds.get().closes_at - timezone.now()
    assert timedelta(seconds=80) < left <= timedelta(seconds=100)


# Who may, and when


def test_the_training_says_since_when_it_is_paused(make_scene):
    scene = make_scene()
    assert scene.shown["paused_at"] is None

    answer = scene.command("pause")

    assert (answer.status_code, answer.json()) == (202, {"detail": "Training paused!"})
    assert answer["Location"].endswith(f"/api/trainings/{scene.id}/")
    assert (scene.state, bool(scene.shown["paused_at"])) == ("P", True)
    assert scene.command("resume").json() == {"detail": "Training resumed!"}
    assert (scene.state, scene.shown["paused_at"]) == ("O", None)


@pytest.mark.parametrize(
    ("before", "command", "words"),
    [
        ((), "pause", "is not under way, but in state I!"),
        (("start", "pause"), "pause", "is paused already!"),
        (("start",), "resume", "is not paused, but in state O!"),
        (("start", "pause"), "start", "is not in state INITIAL!"),
    ],
)
def test_a_command_at_the_wrong_moment_is_refused_with_the_reason(make_scene, before, command, words):
    scene = make_scene(started=False)
    for each in before:
        assert scene.command(each).status_code == 202

    answer = scene.command(command)

    assert (answer.status_code, answer.json()["code"]) == (400, "wrong_state")
    assert answer.json()["detail"] == f"Training {scene.id} {words}"


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_participants_that_may_not_steer_do_not_pause_either(make_scene, as_, command):
    scene = make_scene(options={"participants_may_steer": False})

    answer = as_(scene.participants[0]).send("POST", f"/api/trainings/{scene.id}/{command}/")

    assert answer.status_code == 403


def test_more_than_a_round_needs_is_not_taken_in_a_pause_either(make_scene):
    scene = make_scene(options={"selection": {"count": 1, "extra": 1}})
    one, other = scene.participants
    scene.command("pause")
    assert scene.send_update(one).status_code == 201

    answer = scene.send_update(other)

    assert (answer.status_code, answer.json()["code"]) == (400, "round_closed")
