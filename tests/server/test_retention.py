"""Which files of a training are kept, and that nothing is removed that something still needs."""

from __future__ import annotations

import itertools
import os
import threading
import time
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone

from folkmoot.server.outbox.models import Event
from folkmoot.server.registry.models import Checkpoint, DamagedBlob
from folkmoot.server.registry.services import clone
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings import integrity, sweeps
from folkmoot.server.trainings.models import SwagStatistic, Update

pytestmark = pytest.mark.django_db

GRACE = 60


@pytest.fixture(autouse=True)
def grace(settings):
    settings.ORPHAN_GRACE_SECONDS = GRACE


@pytest.fixture
def make_run(make_scene):
    """A training of one participant for ten rounds, untested."""

    def make(participants=1, method="FedAvg", **options):
        options = {"tests": "never"} | options
        return make_scene(participants=participants, target_num_updates=10, aggregation_method=method, options=options)

    return make


def go_through(scene, work, *numbers):
    for number in numbers:
        for place, participant in enumerate(scene.participants):
            assert scene.send_update(participant, round=number, w=[number + 1, place]).status_code == 201
        work()


def let_the_grace_pass():
    """All that is there and all that was marked is as old as the grace."""
    then = time.time() - GRACE - 1
    for blob in get_storage().root.glob("??/*"):
        os.utime(blob, (then, then))
    for rows in (Update, Checkpoint, SwagStatistic):
        rows.objects.filter(removed_at__isnull=False).update(removed_at=timezone.now() - timedelta(seconds=GRACE + 1))


def sweep():
    sweeps.mark_what_is_not_kept()
    let_the_grace_pass()
    sweeps.remove_orphaned_blobs()


def kept_updates(scene):
    """The rounds of which the updates are there, as the rows say and the storage has it."""
    kept = set()
    for update in updates(scene):
        assert get_storage().is_intact(update.sha256) == (update.removed_at is None)
        kept |= {update.round.number} if update.removed_at is None else set()
    return sorted(kept)


def updates(scene):
    return Update.objects.filter(round__training=scene.id).select_related("round").order_by("round__number")


def kept_checkpoints(scene, as_):
    steps = as_(scene.actor).get(f"/api/models/{scene.model_id}/checkpoints/").json()
    return [each["round"] for each in steps if each["removed_at"] is None]


# What stays


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [(None, [3]), ("last_round", [3]), ("none", []), (2, [2, 3]), ("all", [0, 1, 2, 3]), (9, [0, 1, 2, 3])],
)
def test_updates_are_kept_of_as_many_rounds_as_the_options_say(make_run, work, wanted, kept):
    scene = make_run(participants=2, **({"retention": {"updates": wanted}} if wanted else {}))
    go_through(scene, work, 0, 1, 2, 3)

    sweep()

    assert kept_updates(scene) == kept


@pytest.mark.parametrize(("wanted", "kept"), [("last_round", [0]), ("all", [0, 1])])
def test_what_a_stopped_training_made_no_model_of_is_kept_only_where_all_is(make_run, work, wanted, kept):
    scene = make_run(participants=2, retention={"updates": wanted})
    go_through(scene, work, 0)
    scene.send_update(scene.participants[0], round=1)
    scene.command("stop")

    sweep()

    assert kept_updates(scene) == kept


def test_by_default_every_checkpoint_is_kept(make_run, work, as_):
    scene = make_run()
    go_through(scene, work, 0, 1, 2)

    sweep()

    assert kept_checkpoints(scene, as_) == [0, 1, 2, 3]
    assert scene.weights(1) == [1, 0]


def test_the_first_the_last_and_the_best_checkpoint_stay_however_few_are_wanted(make_run, work, as_):
    scene = make_run(retention={"checkpoints": 2}, tests="every_round")
    for number, loss in enumerate([9, 1, 5, 5, 5]):
        go_through(scene, work, number)
        scene.report(scene.participants[0], loss=loss)
        work()

    sweep()

    assert kept_checkpoints(scene, as_) == [0, 2, 4, 5]
    assert scene.weights("best") == [2, 0]


def test_a_checkpoint_that_was_removed_says_so_and_keeps_its_history(make_run, work, as_):
    scene = make_run(retention={"checkpoints": 1})
    go_through(scene, work, 0, 1, 2)
    before = as_(scene.actor).get(f"/api/models/{scene.model_id}/checkpoints/").json()[1]

    sweep()

    answer = as_(scene.actor).get(f"/api/models/{scene.model_id}/?round=1")
    assert (answer.status_code, answer.json()["code"]) == (410, "removed")
    after = as_(scene.actor).get(f"/api/models/{scene.model_id}/checkpoints/").json()[1]
    assert (after["sha256"], after["num_bytes"], after["origin"]) == (
        before["sha256"],
        before["num_bytes"],
        "aggregation",
    )
    assert after["aggregation"] == before["aggregation"]
    assert after["links"] == {}


def test_a_question_to_a_checkpoint_that_was_removed_is_refused(make_run, work, as_):
    scene = make_run(retention={"checkpoints": 1})
    go_through(scene, work, 0, 1)
    sweep()

    question = {"model_id": str(scene.model_id), "model_input": [[1, 2]], "round": 1}
    answer = as_(scene.actor).send("POST", "/api/inference/", question)

    assert (answer.status_code, answer.json()["code"]) == (400, "removed")


def test_an_update_that_was_removed_keeps_its_row_and_scores(make_run, work, as_):
    scene = make_run()
    go_through(scene, work, 0, 1)

    sweep()

    first, second = as_(scene.actor).get(f"/api/trainings/{scene.id}/updates/").json()
    assert first["removed_at"] is not None
    assert first["scores"]["weight"] == 1.0
    assert second["removed_at"] is None


# What something still needs


def test_what_an_open_round_has_is_not_removed(make_run, work):
    scene = make_run(participants=2, retention={"updates": "none"})
    go_through(scene, work, 0)
    scene.send_update(scene.participants[0], round=1)

    sweep()

    assert kept_updates(scene) == [1]
    scene.send_update(scene.participants[1], round=1)
    work()
    assert scene.round_states == ["CLOSED", "CLOSED", "OPEN"]


def test_local_models_on_their_way_to_another_participant_are_not_removed(make_run, work, as_):
    scene = make_run(participants=2, daisy_chain_period=3, retention={"updates": "none"})
    go_through(scene, work, 0)

    sweep()

    for participant in scene.participants:
        sent = scene.told(participant)[-1][1]["global_model_uuid"]
        assert as_(participant).get(f"/api/models/{sent}/").status_code == 200


def test_checkpoints_that_late_updates_may_have_begun_with_are_not_removed(make_run, work, as_):
    buffer = {"buffer_size": 1, "max_staleness": 2}
    scene = make_run(participants=2, method="FedBuff", aggregation=buffer, retention={"checkpoints": 1})
    one, late = scene.participants
    for number in range(4):
        scene.send_update(one, round=number, w=[number + 1, 0])
        work()

    sweep()

    assert kept_checkpoints(scene, as_) == [0, 2, 3, 4]
    assert scene.send_update(late, round=2, w=[0, 0]).status_code == 201
    work()
    assert scene.state == "O"


def test_the_state_goes_on_where_old_ones_were_removed(make_run, work):
    swept, other = (make_run(method="FedAdam", retention={"checkpoints": 1, "updates": "none"}) for _ in range(2))
    for number in range(4):
        go_through(swept, work, number)
        go_through(other, work, number)
        if number == 2:
            swept_files = Checkpoint.objects.filter(model=other.model_id)
            sweeps.mark_what_is_not_kept()
            assert swept_files.filter(removed_at__isnull=False).exists()
            let_the_grace_pass()
            sweeps.remove_orphaned_blobs()

    assert swept.weights() == other.weights()


def test_a_copy_keeps_the_checkpoint_that_it_began_with(make_run, work, make_scene, as_):
    scene = make_run(retention={"checkpoints": 1})
    go_through(scene, work, 0, 1)
    copy = clone(scene.training.model)
    go_through(scene, work, 2, 3)

    sweep()

    assert kept_checkpoints(scene, as_) == [0, 4]
    assert as_(scene.actor).get(f"/api/models/{copy.pk}/").status_code == 200


def test_files_stay_for_the_grace_after_they_were_marked(make_run, work):
    """Who read the row before it was marked may be writing another that refers to the same bytes."""
    scene = make_run(retention={"checkpoints": 1})
    go_through(scene, work, 0, 1)
    found = scene.training.model.checkpoints.get(round=1)

    let_the_grace_pass()
    sweeps.mark_what_is_not_kept()
    sweeps.remove_orphaned_blobs()
    assert get_storage().is_intact(found.sha256)

    let_the_grace_pass()
    sweeps.remove_orphaned_blobs()
    assert not get_storage().is_intact(found.sha256)


@pytest.mark.parametrize(
    "retention", [{"checkpoints": 0}, {"updates": "some"}, {"updates": True}, {"rounds": 1}, "all"]
)
def test_a_retention_that_makes_no_sense_is_refused(make_model, make_user, as_, retention):
    actor = make_user()
    plan = {"model_id": str(make_model(actor).pk), "target_num_updates": 2, "aggregation_method": "FedAvg"}

    answer = as_(actor).send("POST", "/api/trainings/", plan | {"options": {"retention": retention}})

    assert answer.status_code == 400


# A sweep against an upload of the same bytes


@pytest.mark.django_db(transaction=True)
def test_a_sweep_never_takes_a_file_from_an_upload_of_the_same_bytes(make_run, make_scene, work):
    """Each time the file of an update that was removed is about to go while another uploads the same bytes."""
    first = make_run(retention={"updates": "none"})
    go_through(first, work, 0)
    (shared,) = updates(first)
    data = get_storage().path(shared.sha256).read_bytes()
    sweeps.mark_what_is_not_kept()
    for _ in range(20):
        other = make_scene(participants=1, options={"tests": "never", "retention": {"updates": "all"}})
        let_the_grace_pass()
        together, sent = threading.Barrier(2), []

        def upload(scene=other, together=together, sent=sent):
            together.wait()
            sent.append(scene.send_update(scene.participants[0], file=data).status_code)
            connections.close_all()

        thread = threading.Thread(target=upload)
        thread.start()
        together.wait()
        sweeps.remove_orphaned_blobs()
        thread.join()

        assert sent == [201]
        assert get_storage().is_intact(shared.sha256)
        work()
        assert other.state == "C"
        updates(other).update(removed_at=timezone.now())


# Damage


def test_a_damaged_file_raises_one_alarm(make_run, work, caplog):
    scene = make_run(participants=2, retention={"updates": "all"})
    go_through(scene, work, 0, 1)
    damaged = updates(scene)[0]
    get_storage().path(damaged.sha256).write_bytes(b"other bytes")

    for _ in range(3):
        sweeps.check_what_is_kept()

    (alarm,) = Event.objects.filter(kind=integrity.DAMAGED)
    assert (alarm.subject, alarm.payload["what"]) == (scene.id, f"update {damaged.pk}")
    assert [each.sha256 for each in DamagedBlob.objects.all()] == [damaged.sha256]
    assert sum("is damaged, or gone" in each for each in caplog.messages) == 1


def test_a_file_that_is_gone_is_found_too_and_one_that_came_back_is_forgotten(make_model):
    model = make_model()
    blob = get_storage().path(model.template_sha256)
    data = blob.read_bytes()
    blob.unlink()

    sweeps.check_what_is_kept()
    assert DamagedBlob.objects.exists()

    blob.write_bytes(data)
    sweeps.check_what_is_kept()
    assert not DamagedBlob.objects.exists()


def test_damage_is_forgotten_with_the_last_row_that_keeps_the_file(make_model):
    model = make_model()
    get_storage().path(model.template_sha256).unlink()
    sweeps.check_what_is_kept()
    assert DamagedBlob.objects.exists()

    model.delete()
    sweeps.check_what_is_kept()

    assert not DamagedBlob.objects.exists()


def test_each_sweep_reads_a_part_and_all_together_everything(make_run, work):
    scene = make_run(retention={"updates": "all"})
    go_through(scene, work, 0, 1, 2)
    for update in updates(scene):
        get_storage().path(update.sha256).write_bytes(b"")
    patrol, found = integrity.Patrol(), [0]

    while found[-1] < 3 and len(found) < 30:
        patrol.check(max_bytes=1)
        found.append(DamagedBlob.objects.count())

    assert max(after - before for before, after in itertools.pairwise(found)) == 1
    assert found[-1] == 3


def test_removed_files_are_nobodys_damage(make_run, work):
    scene = make_run(retention={"updates": "none"})
    go_through(scene, work, 0, 1)
    sweep()

    sweeps.check_what_is_kept()

    assert not DamagedBlob.objects.exists()
