"""SWAG: after each aggregation the participants send the moments of their parameters, and then the round goes on."""

from __future__ import annotations

import io
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import safetensors.numpy

from folkmoot.server.outbox.models import Event
from folkmoot.server.registry.models import Model, Moments
from folkmoot.server.trainings import handlers, swag, sweeps
from folkmoot.server.trainings.models import SwagStatistic
from folkmoot.server.trainings.verification import Outcome, verify

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.django_db

MODELS = "/api/models/"


def saved(values):
    """As the seed's participants send it: one flat tensor, saved by torch."""
    file = io.BytesIO()
    torch.save(values if isinstance(values, torch.Tensor) else torch.tensor(values, dtype=torch.float32), file)
    return named(file.getvalue())


def named(data):
    file = io.BytesIO(data)
    file.name = "moment.pt"
    return file


@pytest.fixture
def send(as_):
    def post(scene, user, *, round=1, sample_size=1, first=(1.0, 2.0), second=(3.0, 4.0), **fields):
        fields = {
            "round": round,
            "sample_size": sample_size,
            "first_moment_file": saved(first) if isinstance(first, tuple) else first,
            "second_moment_file": saved(second) if isinstance(second, tuple) else second,
        } | fields
        fields = {name: value for name, value in fields.items() if value is not None}
        return as_(user).post(f"{MODELS}{scene.model_id}/swag/", fields)

    return post


@pytest.fixture
def swag_scene(make_scene, work):
    """A training with SWAG of which the first round's updates are aggregated, and its moments awaited."""

    def make(**fields):
        scene = make_scene(uncertainty_method="SWAG", **fields)
        for participant in scene.participants:
            assert scene.send_update(participant).status_code == 201
        work()
        return scene

    return make


@pytest.fixture
def scene(swag_scene):
    return swag_scene()


@pytest.fixture
def moments(as_):
    """A function: a moment of the scene's model as torch loads it."""

    def load(scene, part, **query):
        answer = as_(scene.actor).get(f"{MODELS}{scene.model_id}/", {"part": part, **query})
        assert answer.status_code == 200, answer.content
        return torch.load(io.BytesIO(answer.getvalue()), weights_only=True)

    return load


# A whole round


def test_after_the_aggregation_the_cohort_is_asked_for_moments(scene):
    assert (scene.state, scene.round_states) == ("S", ["SWAG"])
    for participant in scene.participants:
        assert scene.asked_of(participant) == ["SWAG_ROUND_START"]
        kind, body = scene.told(participant)[-1]
        assert kind == "SWAG_ROUND_START"
        assert (body["round"], body["global_model_uuid"]) == (1, str(scene.model_id))


def test_moments_are_taken_and_their_sender_is_asked_for_nothing_more(scene, send):
    one, other = scene.participants

    answer = send(scene, one)

    assert (answer.status_code, answer.json()) == (201, {"detail": "SWAG Statistic Accepted"})
    assert answer["Location"].endswith(f"{MODELS}{scene.model_id}/")
    assert (scene.asked_of(one), scene.asked_of(other)) == ([], ["SWAG_ROUND_START"])
    assert scene.state == "S"


def test_the_models_moments_are_the_means_weighted_by_examples(scene, send, moments, work):
    one, other = scene.participants
    send(scene, one, sample_size=1, first=(0.0, 4.0), second=(0.0, 8.0))
    send(scene, other, sample_size=3, first=(4.0, 8.0), second=(8.0, 0.0))

    assert (scene.state, scene.round_states, scene.shown["locked"]) == ("O", ["MERGING"], True)
    work()

    assert moments(scene, "first_moment").tolist() == [3, 7]
    assert moments(scene, "second_moment").tolist() == [6, 2]
    assert moments(scene, "first_moment").dtype == torch.float32


def test_then_the_model_is_tested_and_the_training_ends(scene, send, work):
    for participant in scene.participants:
        send(scene, participant)
    work()
    assert (scene.state, scene.round_states) == ("O", ["TESTING"])
    for participant in scene.participants:
        scene.report(participant, loss=1)
    work()

    assert scene.state == "C"
    for participant in scene.participants:
        assert scene.types_told(participant) == [
            "TRAINING_START",
            "UPDATE_ROUND_START",
            "SWAG_ROUND_START",
            "MODEL_TEST_ROUND",
            "TRAINING_FINISHED",
        ]


def test_each_aggregation_has_moments_of_its_own(swag_scene, send, moments, work):
    scene = swag_scene(participants=1, target_num_updates=2, options={"tests": "never"})
    (participant,) = scene.participants
    send(scene, participant, first=(1.0, 1.0))
    work()
    scene.send_update(participant, round=1)
    work()
    assert scene.state == "S"
    send(scene, participant, round=2, first=(2.0, 2.0))
    work()

    assert scene.state == "C"
    assert moments(scene, "first_moment").tolist() == [2, 2]
    assert moments(scene, "first_moment", round=1).tolist() == [1, 1]


def test_in_daisy_chaining_only_what_was_aggregated_has_moments(make_scene, work):
    options = {"daisy_chain_period": 2, "tests": "never"}
    scene = make_scene(uncertainty_method="SWAG", options=options, participants=1)
    (participant,) = scene.participants
    states = []
    for number in range(2):
        scene.send_update(participant, round=number)
        work()
        states.append(scene.state)

    assert states == ["O", "S"]


def test_who_has_no_moments_does_not_end_the_wait_for_as_many_as_are_wanted(make_scene, send, moments, work):
    options = {"tests": "never", "selection": {"count": 1, "extra": 1}}
    scene = make_scene(uncertainty_method="SWAG", options=options)
    one, other = scene.participants
    scene.send_update(one)
    work()

    send(scene, one, sample_size=0, first=None, second=None)
    assert scene.state == "S"
    send(scene, other, first=(2.0, 2.0))
    work()

    assert scene.state == "C"
    assert moments(scene, "first_moment").tolist() == [2, 2]


# How the model is shown


def test_the_model_becomes_one_with_moments_which_are_null_at_first(scene, as_):
    (shown,) = as_(scene.actor).get(MODELS).json()

    assert shown["swag_first_moment"] is None
    assert shown["swag_second_moment"] is None
    assert as_(scene.actor).get(f"{MODELS}{scene.model_id}/").status_code == 200
    answer = as_(scene.actor).get(f"{MODELS}{scene.model_id}/?part=first_moment")
    assert (answer.status_code, answer.json()["detail"]) == (404, f"Model {scene.model_id} has no moments.")


def test_afterwards_they_are_links(scene, send, work, as_, caller):
    for participant in scene.participants:
        send(scene, participant)
    work()

    (shown,) = as_(scene.actor).get(MODELS).json()

    for part in ("first_moment", "second_moment"):
        link = shown[f"swag_{part}"]
        assert link.endswith(f"{MODELS}{scene.model_id}/?part={part}")
        answer = as_(scene.actor).get(link)
        assert answer.status_code == 200
        assert answer["Content-Disposition"] == f'attachment; filename="model-{scene.model_id}-{part}.pt"'
    assert shown["id"] == as_(scene.actor).get(f"/api/trainings/{scene.id}/models/").json()[0]["id"]


def test_the_same_moments_are_the_same_file(scene, send, work, as_, storage):
    for participant in scene.participants:
        send(scene, participant)
    work()
    path = f"{MODELS}{scene.model_id}/?part=first_moment"

    first = as_(scene.actor).get(path)
    for made in (storage.root / "made").glob("*.*"):
        made.unlink()
    again = as_(scene.actor).get(path)

    assert first.getvalue() == again.getvalue()
    assert first["ETag"] == again["ETag"]


def test_moments_are_a_torch_tensor_and_nothing_else(scene, send, work, as_):
    for participant in scene.participants:
        send(scene, participant)
    work()

    path = f"{MODELS}{scene.model_id}/?part=first_moment"
    assert as_(scene.actor).get(path + "&as=torch").status_code == 200
    assert as_(scene.actor).get(path + "&as=npz").status_code == 400


def test_a_model_may_be_uploaded_as_one_with_moments(as_, make_user, tensors_file):
    ada = make_user()
    fields = {"name": "m", "description": "d", "type": "SWAG", "model_file": named(tensors_file(w=[1]))}

    assert as_(ada).post(MODELS, fields).status_code == 201
    (shown,) = as_(ada).get(MODELS).json()
    assert shown["swag_first_moment"] is None


def test_a_model_without_swag_has_no_such_keys(make_scene, as_):
    scene = make_scene()

    assert "swag_first_moment" not in as_(scene.actor).get(MODELS).json()[0]


# What is taken


def safetensors_of(*values):
    return named(safetensors.numpy.save({"m": np.array(values, "f4")}))


def npz_of(*values):
    file = io.BytesIO()
    np.savez(file, np.array(values, "f4"))
    return named(file.getvalue())


@pytest.mark.parametrize(
    "first",
    [
        saved(torch.tensor([[1.0], [2.0]])),
        saved(torch.tensor([1.0, 2.0], dtype=torch.float64)),
        saved(torch.tensor([1.0, 2.0], dtype=torch.bfloat16)),
        saved(torch.nn.Parameter(torch.tensor([1.0, 2.0]))),
        saved(torch.tensor([1.0, 9.0, 2.0])[::2]),
        safetensors_of(1, 2),
        npz_of(1, 2),
    ],
    ids=["column", "float64", "bfloat16", "parameter", "strided", "safetensors", "npz"],
)
def test_any_file_of_one_tensor_of_floats_is_taken(swag_scene, send, moments, work, first):
    scene = swag_scene(participants=1)
    first.seek(0)

    assert send(scene, scene.participants[0], first=first).status_code == 201
    work()

    assert moments(scene, "first_moment").tolist() == [1, 2]


def saved_dict():
    file = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, file)
    return named(file.getvalue())


def script():
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), file)
    return named(file.getvalue())


def two_tensors():
    return named(safetensors.numpy.save({"a": np.ones(1, "f4"), "b": np.ones(1, "f4")}))


def evil():
    class Evil:
        def __reduce__(self):
            return (eval, ("1",))

    file = io.BytesIO()
    torch.save(Evil(), file)
    return named(file.getvalue())


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda: saved((1.0,)), "invalid_value", "second_moment_file has 1 values; the model has 2 parameters"),
        (lambda: saved((1.0, 2.0, 3.0)), "invalid_value", "has 3 values; the model has 2 parameters"),
        (lambda: saved(torch.tensor([1, 2])), "invalid_value", "second_moment_file holds int64; expected floats"),
        (lambda: saved((1.0, float("nan"))), "non_finite", "second_moment holds nan at [1]"),
        (lambda: saved(torch.tensor([1.0, 1e300], dtype=torch.float64)), "non_finite", "second_moment holds inf"),
        (saved_dict, "invalid_file", "a dictionary; expected one tensor by itself"),
        (script, "invalid_file", "TorchScript; expected one tensor by itself"),
        (two_tensors, "invalid_file", "the file holds 2 tensors; expected one"),
        (evil, "unsafe_pickle", "eval"),
        (lambda: named(b""), "unsupported_container", ""),
        (lambda: None, "invalid_value", "No uploaded file 'second_moment_file' found."),
    ],
)
def test_what_is_wrong_with_moments_is_said(scene, send, make, code, words):
    answer = send(scene, scene.participants[0], second=make())

    assert answer.status_code == 400
    assert answer.json()["code"] == code
    assert words in answer.json()["detail"]
    assert not SwagStatistic.objects.exists()
    assert send(scene, scene.participants[0]).status_code == 201


@pytest.mark.parametrize(
    ("field", "value"),
    [("round", None), ("round", "x"), ("sample_size", None), ("sample_size", -1), ("sample_size", "nan")],
)
def test_a_field_that_is_missing_or_wrong_is_named(scene, send, field, value):
    answer = send(scene, scene.participants[0], **{field: value})

    assert answer.status_code == 400
    assert field in answer.json()["detail"]


def module():
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))


def frozen():
    model = module()
    model[0].weight.requires_grad_(False)
    return model


def tied():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


def file_of(thing, save=torch.save):
    file = io.BytesIO()
    save(thing, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("file", "count"),
    [
        (file_of(module()), 15),
        (file_of(frozen()), 15),
        (file_of(tied()), 15),
        (file_of(torch.jit.script(module()), torch.jit.save), 15),
        # A state_dict does not tell parameters from buffers: the two statistics of 3 count too, the counter does not.
        (file_of(module().state_dict()), 21),
    ],
    ids=["module", "frozen", "tied", "script", "state_dict"],
)
def test_a_moment_is_as_long_as_all_parameters_together(make_model, make_scene, make_user, work, send, file, count):
    actor = make_user()
    scene = make_scene(actor=actor, model=make_model(actor, file=file), participants=1, uncertainty_method="SWAG")
    scene.send_update(scene.participants[0], file=file)
    work()
    short = send(scene, scene.participants[0], first=(1.0,), second=(1.0,))
    assert short.json()["detail"] == f"first_moment_file has 1 values; the model has {count} parameters"

    assert send(scene, scene.participants[0], first=(1.0,) * count, second=(1.0,) * count).status_code == 201


def test_moments_of_a_model_in_float64_keep_their_precision(make_model, make_scene, make_user, work, send, moments):
    actor = make_user()
    model = make_model(actor, w=np.zeros(2))
    scene = make_scene(actor=actor, model=model, participants=1, uncertainty_method="SWAG")
    scene.send_update(scene.participants[0], w=np.zeros(2))
    work()
    exact = torch.tensor([1 + 2.0**-50, 2.0], dtype=torch.float64)

    send(scene, scene.participants[0], first=saved(exact))
    work()

    assert torch.equal(moments(scene, "first_moment"), exact)


# Twice, late, by others


def test_the_same_bytes_again_get_the_same_answer(scene, send):
    send(scene, scene.participants[0])

    again = send(scene, scene.participants[0])

    assert (again.status_code, again.json()) == (200, {"detail": "SWAG Statistic Accepted"})


def test_other_bytes_than_the_first_are_refused(scene, send):
    send(scene, scene.participants[0])

    answer = send(scene, scene.participants[0], second=(9.0, 9.0))

    assert (answer.status_code, answer.json()["code"]) == (409, "already_submitted")


def test_a_stranger_sends_no_moments(scene, send, make_user):
    answer = send(scene, make_user())

    assert answer.status_code == 403
    assert answer.json()["detail"] == f"You are not a participant of training {scene.id}!"


def test_moments_are_taken_in_their_round_only(scene, send):
    later, earlier = (send(scene, scene.participants[0], round=round) for round in (2, 0))

    assert (later.status_code, later.json()["code"]) == (400, "round_not_open")
    assert (earlier.status_code, earlier.json()["code"]) == (400, "round_closed")
    assert later.json()["detail"] == f"Training with ID {scene.id} is not currently in round 2"


def test_moments_are_taken_in_a_swag_round_only(make_scene, send):
    scene = make_scene(uncertainty_method="SWAG")

    answer = send(scene, scene.participants[0])

    assert answer.status_code == 400
    assert answer.json() == {"detail": f"Training with ID {scene.id} is in state O", "code": "wrong_state"}


def test_a_model_without_a_training_takes_no_moments(make_model, as_):
    model = make_model()

    answer = as_(model.owner).post(f"{MODELS}{model.pk}/swag/", {"round": 1, "sample_size": 0})

    assert answer.status_code == 404
    assert answer.json()["detail"] == f"Model with ID {model.pk} does not have a training process running"


def test_an_unknown_model_takes_no_moments(as_, make_user):
    assert as_(make_user()).post(f"{MODELS}{UUID(int=1)}/swag/", {"round": 1}).status_code == 404


def test_no_update_and_no_metrics_answer_a_swag_round(scene):
    assert scene.send_update(scene.participants[0], round=1).status_code == 400
    scene.report(scene.participants[0], loss=1)

    assert scene.round_states == ["SWAG"]


# Who has none, does not answer, or leaves


def test_who_has_no_moments_says_so_and_the_round_goes_on(scene, send, moments, work):
    one, other = scene.participants

    none = send(scene, one, sample_size=0, first=None, second=None)
    send(scene, other, first=(5.0, 6.0))
    work()

    assert none.status_code == 201
    assert moments(scene, "first_moment").tolist() == [5, 6]
    assert scene.round_states == ["TESTING"]


def test_no_examples_have_no_files(scene, send):
    answer = send(scene, scene.participants[0], sample_size=0)

    assert answer.status_code == 400
    assert "sample_size is 0" in answer.json()["detail"]


def test_a_round_without_any_moments_goes_on_without(scene, send, work):
    for participant in scene.participants:
        send(scene, participant, sample_size=0, first=None, second=None)
    work()

    assert (scene.state, scene.round_states) == ("O", ["TESTING"])
    assert not Moments.objects.exists()


@pytest.mark.parametrize("arrived", [0, 1])
def test_a_swag_round_ends_at_its_deadline(scene, send, arrived):
    for participant in scene.participants[:arrived]:
        send(scene, participant)

    scene.let_deadline_pass()

    assert (scene.state, scene.round_states) == ("O", ["TESTING"])
    assert Moments.objects.count() == arrived
    # Missing in that step alone.
    assert scene.asked_of(scene.participants[1]) == ["MODEL_TEST_ROUND"]


def test_the_sweep_finds_an_overdue_swag_round(scene, work):
    scene.training.rounds.update(closes_at=scene.training.created_at)

    sweeps.close_overdue_rounds()

    assert scene.round_states == ["TESTING"]


def test_a_swag_round_ends_when_the_last_awaited_one_is_removed(scene, send, work):
    send(scene, scene.participants[0], first=(7.0, 7.0))

    scene.remove(scene.participants[1])
    work()

    assert scene.round_states == ["TESTING"]


def test_a_training_that_everybody_leaves_in_its_last_swag_round_completes(scene, work):
    scene.remove(*scene.participants)
    work()

    assert scene.state == "C"


def test_who_joins_in_a_swag_round_is_not_asked(scene, send, make_user, work):
    late = make_user()
    scene.add(late)
    work()

    assert scene.asked_of(late) == []
    answer = send(scene, late)
    assert (answer.status_code, answer.json()["code"]) == (400, "round_not_open")


def test_a_training_is_removed_in_its_swag_round(scene, as_):
    assert as_(scene.actor).delete(f"/api/trainings/{scene.id}/").status_code == 200
    assert scene.asked_of(scene.participants[0]) == []


def test_an_endpoint_that_rejects_the_start_of_a_swag_round_counts_as_missing_in_it(scene, send, work):
    one, other = scene.participants
    send(scene, one)
    facts = {"recipient": str(other.pk), "type": "SWAG_ROUND_START", "round": 1}

    handlers.mind_rejection(Event(subject=scene.id, kind="push_rejected", payload=facts))
    work()

    assert scene.round_states == ["TESTING"]
    assert scene.asked_of(other) == ["MODEL_TEST_ROUND"]
    assert str(other.pk) in scene.shown["participants"]


# A worker that does its work twice; what becomes of the files


def test_moments_are_merged_once_however_often_it_is_asked_for(scene, send, work):
    for participant in scene.participants:
        send(scene, participant)
    work()

    swag.merge_moments(scene.id, 0)
    handlers.announce_swag(Event.objects.get(kind="swag_opened"))

    assert Moments.objects.count() == 1
    assert scene.round_states == ["TESTING"]


def flip_a_value(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def flip_the_header(path):
    data = bytearray(path.read_bytes())
    data[9] ^= 1
    path.write_bytes(data)


ANY_DAMAGE = pytest.mark.parametrize("damage", [flip_a_value, flip_the_header, Path.unlink])


@pytest.fixture
def sent(scene, send, storage):
    """A scene whose participants have sent moments, and where each one's are."""
    for number, participant in enumerate(scene.participants):
        send(scene, participant, first=(float(number), 0.0))
    return scene, [storage.path(each.sha256) for each in of_participants(scene)]


def of_participants(scene):
    return [SwagStatistic.objects.get(participant=participant) for participant in scene.participants]


@ANY_DAMAGE
@pytest.mark.parametrize("place", [0, 1])
def test_damaged_moments_are_left_out_and_the_reason_is_noted(sent, work, moments, place, damage):
    scene, paths = sent
    damage(paths[place])

    work()

    assert scene.round_states == ["TESTING"]
    assert moments(scene, "first_moment").tolist() == [1 - place, 0]
    noted = Event.objects.get(kind="moments_rejected").payload
    assert noted["participant"] == str(scene.participants[place].pk)
    assert noted["reason"].startswith(f"update {noted['participant']} is damaged: ")
    assert of_participants(scene)[place].num_examples == 0


@ANY_DAMAGE
def test_with_no_whole_moments_left_the_training_ends_with_a_reason(sent, work, damage):
    scene, paths = sent
    for path in paths:
        damage(path)

    work()

    assert scene.state == "E"
    assert scene.shown["reason"].startswith("The moments of round 1 could not be merged: update ")


def test_the_manifest_says_what_the_moments_were_merged_of_and_they_come_out_the_same_again(sent, work, as_):
    scene, _ = sent
    work()

    made = as_(scene.actor).get(f"/api/trainings/{scene.id}/manifest/").json()

    recipe = made["rounds"][0]["moments"]
    by_id = sorted(of_participants(scene), key=lambda each: str(each.participant_id))
    assert [each["sha256"] for each in recipe["inputs"]] == [each.sha256 for each in by_id]
    assert recipe["output"]["sha256"] == Moments.objects.get().sha256
    assert [each.outcome for each in verify(made)] == [Outcome.OK]
    recipe["inputs"][0]["num_examples"] = 7
    (verdict,) = verify(made)
    assert verdict.outcome == Outcome.DIFFERS
    assert verdict.detail.startswith("the file of moments comes out as ")


def test_damaged_moments_are_not_in_the_manifest(sent, work, as_):
    scene, paths = sent
    paths[0].unlink()
    work()

    made = as_(scene.actor).get(f"/api/trainings/{scene.id}/manifest/").json()

    other = scene.participants[1]
    assert [each["participant"] for each in made["rounds"][0]["moments"]["inputs"]] == [str(other.pk)]


def test_the_files_of_moments_stay_as_long_as_their_rows(scene, send, work, storage, settings):
    for number, participant in enumerate(scene.participants):
        send(scene, participant, first=(float(number), 0.0))
    work()
    settings.ORPHAN_GRACE_SECONDS = 0

    sweeps.remove_orphaned_blobs()

    kept = [*SwagStatistic.objects.values_list("sha256", flat=True), Moments.objects.get().sha256]
    assert [storage.path(sha256).exists() for sha256 in kept] == [True] * 3


def test_a_model_that_is_copied_begins_without_moments(scene, send, work, make_training):
    for participant in scene.participants:
        send(scene, participant)
    work()

    copy = make_training(scene.actor, model=Model.objects.get(pk=scene.model_id)).model

    assert copy.type == "SWAG"
    assert Moments.objects.filter(checkpoint__model=copy).count() == 0
