"""A training's manifest, and that each round's model can be made once more of what it names."""

from __future__ import annotations

import copy
import json

import pytest

from folkmoot.errors import InvalidValue
from folkmoot.server.registry.models import Checkpoint
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings import sweeps
from folkmoot.server.trainings.models import Update
from folkmoot.server.trainings.verification import Outcome, verify

pytestmark = pytest.mark.django_db


@pytest.fixture
def make_run(make_scene, work):
    """A training of three rounds, gone through, untested, of which all updates are kept."""

    def make(method="FedAvg", rounds=3, participants=2, **options):
        options = {"tests": "never", "retention": {"updates": "all"}} | options
        scene = make_scene(
            participants=participants, target_num_updates=rounds, aggregation_method=method, options=options
        )
        for number in range(rounds):
            for place, participant in enumerate(scene.participants):
                sample_size, loss = place + 1, number + place / 2
                fields = {"metric_names": ["loss"], "metric_values": [loss]}
                fields |= {"round": number, "sample_size": sample_size, "w": [number + 1, place]}
                answer = scene.send_update(participant, **fields)
                assert answer.status_code == 201, answer.content
            work()
        return scene

    return make


@pytest.fixture
def manifest(as_):
    def look(scene):
        answer = as_(scene.actor).get(f"/api/trainings/{scene.id}/manifest/")
        assert answer.status_code == 200, answer.content
        return answer.json()

    return look


def outcomes(manifest, **which):
    return [(verdict.round, verdict.outcome) for verdict in verify(manifest, **which)]


def test_a_manifest_names_all_that_a_round_was_made_of_in_the_order_of_summing(make_run, manifest):
    scene = make_run()

    shown = manifest(scene)
    second = shown["rounds"][1]

    checkpoints = {each.round: each for each in Checkpoint.objects.filter(model=scene.model_id)}
    recipe = second["recipe"]
    assert recipe["bases"] == [{"round": 1, "sha256": checkpoints[1].sha256, "beneath": []}]
    updates = Update.objects.filter(round__training=scene.id, round__number=1).order_by("participant")
    by_id = sorted(updates, key=lambda each: str(each.participant_id))
    assert [each["update"] for each in recipe["inputs"]] == [str(each.pk) for each in by_id]
    assert [each["sha256"] for each in recipe["inputs"]] == [each.sha256 for each in by_id]
    assert sorted(each["num_examples"] for each in recipe["inputs"]) == [1, 2]
    assert sorted(each["metrics"]["loss"] for each in recipe["inputs"]) == [1.0, 1.5]
    assert second["output"]["sha256"] == checkpoints[2].sha256
    assert second["versions"].keys() == {"folkmoot", "numpy", "python"}
    assert shown["options"]["retention"] == {"updates": "all"}


def test_parameters_that_nobody_chose_are_in_the_manifest_too(make_run, manifest):
    scene = make_run(method="FedAdam", rounds=2, aggregation={"beta_1": 0.5})

    first, second = manifest(scene)["rounds"]

    assert first["recipe"]["parameters"] == {
        "server_learning_rate": 0.1,
        "beta_1": 0.5,
        "beta_2": 0.99,
        "tau": 1e-3,
        "aggregator": "FedAvg",
        "scores": True,
    }
    assert first["recipe"]["state"] == ""
    assert second["recipe"]["state"] == first["new_state"]["sha256"]


def test_who_is_not_the_actor_does_not_see_what_others_have(make_run, as_, make_user):
    scene = make_run(rounds=1)

    path = f"/api/trainings/{scene.id}/manifest/"

    assert as_(scene.participants[0]).get(path).status_code == 403
    assert as_(make_user(is_staff=True)).get(path).status_code == 200


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("FedAvg", {}),
        ("FedAvg", {"exchange": ["w"], "aggregation": {"clip": 0.5}}),
        ("FedAdam", {}),
        ("Median", {}),
        ("FedAvg", {"daisy_chain_period": 1}),
    ],
)
def test_each_round_comes_out_the_same_again(make_run, manifest, method, options):
    found = outcomes(manifest(make_run(method=method, **options)))

    assert found == [(0, Outcome.OK), (1, Outcome.OK), (2, Outcome.OK)]


def test_rounds_with_late_updates_come_out_the_same_again(make_scene, work, manifest):
    options = {
        "tests": "never",
        "retention": {"updates": "all"},
        "aggregation": {"buffer_size": 1, "max_staleness": 3},
    }
    scene = make_scene(target_num_updates=3, aggregation_method="FedBuff", options=options)
    one, late = scene.participants
    for participant, number in ((one, 0), (late, 0), (one, 2)):
        assert scene.send_update(participant, round=number, w=[number, 5]).status_code == 201
        work()

    shown = manifest(scene)

    assert [[each["round"] for each in made["recipe"]["bases"]] for made in shown["rounds"]] == [[0], [0, 1], [2]]
    assert {outcome for _, outcome in outcomes(shown)} == {Outcome.OK}


def test_one_round_can_be_asked_for(make_run, manifest):
    assert outcomes(manifest(make_run()), round=1) == [(1, Outcome.OK)]


def test_a_manifest_stays_whole_where_files_were_removed(make_run, manifest, settings):
    settings.ORPHAN_GRACE_SECONDS = 0
    scene = make_run(retention={})
    before = manifest(scene)

    sweeps.mark_what_is_not_kept()
    sweeps.remove_orphaned_blobs()

    after = manifest(scene)
    assert after == before
    assert outcomes(after) == [(0, Outcome.NOT_KEPT), (1, Outcome.NOT_KEPT), (2, Outcome.OK)]


def test_a_round_that_comes_out_otherwise_differs(make_run, manifest):
    shown = manifest(make_run())
    for change in ("num_examples", "sha256"):
        changed = copy.deepcopy(shown)
        inputs = changed["rounds"][1]["recipe"]["inputs"]
        inputs[0][change] = {"num_examples": 7, "sha256": inputs[1]["sha256"]}[change]

        (_, second, _) = verify(changed)

        assert second.outcome == Outcome.DIFFERS
        assert second.detail.startswith("the checkpoint comes out as ")


def test_a_damaged_update_differs(make_run, manifest):
    shown = manifest(make_run())
    damaged = shown["rounds"][0]["recipe"]["inputs"][1]
    get_storage().path(damaged["sha256"]).write_bytes(b"other bytes")

    (first, *_) = verify(shown)

    assert (first.outcome, first.detail) == (Outcome.DIFFERS, f"update {damaged['update']} is damaged")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("rounds"),
        lambda manifest: manifest.update(rounds=[3]),
        lambda manifest: manifest["rounds"][0]["recipe"].pop("bases"),
        lambda manifest: manifest["rounds"][0]["recipe"].update(bases=[]),
        lambda manifest: manifest["rounds"][0]["recipe"].update(state="../../secret_key"),
        lambda manifest: manifest["rounds"][0]["recipe"]["inputs"][0].update(path="/etc/passwd"),
        lambda manifest: manifest["rounds"][0].pop("output"),
        lambda manifest: manifest["rounds"][0].update(moments={"inputs": [], "output": {"sha256": ""}}),
        lambda manifest: manifest["rounds"][0].update(
            moments={"inputs": [{"participant": "", "sha256": "../secret_key", "num_examples": 1}], "output": {}}
        ),
    ],
)
def test_what_is_no_manifest_is_refused(make_run, manifest, change):
    changed = json.loads(json.dumps(manifest(make_run(rounds=1))))
    change(changed)

    with pytest.raises(InvalidValue):
        list(verify(changed))
