"""Large models are aggregated in shards where files are in an S3-compatible store: the same bytes, by many hands."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from folkmoot.aggregation import Update as AggregationUpdate
from folkmoot.aggregation import aggregate_files, find_strategy
from folkmoot.server.outbox.events import MAX_ATTEMPTS, handle_next_event
from folkmoot.server.outbox.models import Event, Lane
from folkmoot.server.registry.models import Checkpoint
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings import lifecycle, sharding, sweeps
from folkmoot.server.trainings.models import ShardedPass, Training, Update
from folkmoot.tensors import TensorFile, write_tensors
from folkmoot.tensors.checksums import block_checksums
from object_store import BrokenLine, fails, whole

pytestmark = pytest.mark.django_db

VALUES = 5 * 2**16 + 100
"""Of float32: two shards of two blocks each, and a third that is shorter."""
PLAIN = {"tests": "never"}


@pytest.fixture
def line(s3_store):
    with BrokenLine(s3_store) as line:
        yield line


@pytest.fixture
def in_s3(settings, bucket, line, aws_credentials):
    """From here on the hub's files are in a bucket."""
    settings.STORAGE_URL = bucket.url(endpoint=line.endpoint)
    settings.STORAGE_TIMEOUT = 1.0
    settings.SHARD_BYTES = 2**19
    get_storage.cache_clear()
    get_storage().prepare()


def initial():
    return np.random.default_rng(0).normal(size=VALUES).astype("f4")


def sent(number):
    return np.random.default_rng(number).normal(size=VALUES).astype("f4")


@pytest.fixture
def full_round(make_scene, make_model, make_user, tensors_file):
    """A function: a training whose updates are in, and wait to be aggregated."""

    def make(method="FedAvg", options=PLAIN, participants=2):
        actor = make_user()
        model = make_model(actor, file=tensors_file(w=initial()))
        scene = make_scene(
            actor=actor, model=model, participants=participants, aggregation_method=method, options=options
        )
        for number, participant in enumerate(scene.participants, start=1):
            answer = scene.send_update(participant, sample_size=number, file=tensors_file(w=sent(number)))
            assert answer.status_code == 201
        return scene

    return make


@pytest.fixture
def work_once():
    """A function: one event is handled."""
    return lambda: handle_next_event(Lane.TRAININGS)


def made(scene):
    return Checkpoint.objects.get(model=scene.model_id, round=1)


def kinds():
    return list(Event.objects.filter(kind__startswith="shard").order_by("id").values_list("kind", flat=True))


THREE_SHARDS = ["shard_wanted"] * 3 + ["shards_done"]


@pytest.mark.usefixtures("in_s3")
@pytest.mark.parametrize("method", ["FedAvg", "Median"])
def test_the_shards_make_the_bytes_that_one_worker_makes(full_round, work, tmp_path, method):
    scene = full_round(method, participants=3)
    files = {str(each.participant_id): each for each in Update.objects.filter(round__training=scene.id)}

    work()

    assert (scene.state, kinds()) == ("C", THREE_SHARDS)
    updates = []
    for name, update in files.items():
        with get_storage().file(update.sha256) as path:
            updates.append(AggregationUpdate(name, shutil.copy(path, tmp_path / name), update.num_examples))
    write_tensors(tmp_path / "base", {"w": initial()})
    report = aggregate_files(find_strategy(method, {}), tmp_path / "base", updates, tmp_path / "expected")
    assert made(scene).sha256 == report.sha256
    assert bytes(made(scene).checksums) == block_checksums(TensorFile.open(tmp_path / "expected").data)
    assert not ShardedPass.objects.exists()
    assert {update.weight for update in Update.objects.all()} == {each.weight for each in report.scores.values()}


@pytest.mark.usefixtures("in_s3")
@pytest.mark.parametrize(
    ("method", "options"), [("FedAvg", {**PLAIN, "aggregation": {"scores": True}}), ("FedAdam", PLAIN)]
)
def test_what_follows_from_whole_files_or_keeps_state_is_made_by_one_worker(full_round, work, method, options):
    scene = full_round(method, options)

    work()

    assert (scene.state, kinds()) == ("C", [])


def test_in_a_folder_nothing_is_sharded(full_round, work, settings):
    settings.SHARD_BYTES = 2**19
    scene = full_round()

    work()

    assert (scene.state, kinds()) == ("C", [])


@pytest.mark.usefixtures("in_s3")
def test_a_shard_that_is_made_twice_counts_once(full_round, work_once, work):
    scene = full_round()
    work_once()
    begun = ShardedPass.objects.get()

    for _ in range(2):
        sharding.aggregate(begun.pk, 1)
    assert ShardedPass.objects.get().done == [1]
    work()

    assert (scene.state, kinds()) == ("C", THREE_SHARDS)


@pytest.mark.usefixtures("in_s3")
def test_a_shard_whose_worker_froze_after_the_round_was_made_changes_nothing(full_round, work_once, work):
    scene = full_round()
    work_once()
    begun = ShardedPass.objects.get()
    work()
    before = made(scene).sha256

    sharding.aggregate(begun.pk, 1)
    assert sharding.finish(scene.id, 0)

    assert made(scene).sha256 == before
    assert kinds() == THREE_SHARDS


@pytest.mark.usefixtures("in_s3")
def test_a_damaged_update_is_left_out_and_the_rest_aggregated_anew(full_round, work, bucket, settings):
    scene = full_round(options={**PLAIN, "min_updates": 2}, participants=3)
    update = Update.objects.get(participant=scene.participants[0])
    (key,) = bucket.keys(update.sha256)
    data = bytearray(bucket.read(key))
    data[-1] ^= 1
    bucket.put(key, bytes(data))
    for copy in (get_storage().root / "cache").glob(f"{update.sha256}.*"):
        copy.unlink()

    work()

    assert scene.state == "C"
    update.refresh_from_db()
    assert update.status == "rejected"
    mean = (2 * np.float64(sent(2)) + 3 * np.float64(sent(3))) / 5
    assert np.array_equal(np.float32(scene.weights()), np.float32(mean))


@pytest.mark.usefixtures("in_s3")
def test_shards_wait_while_the_store_fails(full_round, work_once, work, line, bring_forward):
    scene = full_round()
    work_once()
    line.fault = fails

    work()
    assert scene.state == "O"
    assert "the file store" in scene.shown["reason"]
    line.fault = whole
    bring_forward()
    work()

    assert (scene.state, scene.shown["reason"]) == ("C", "")


@pytest.mark.usefixtures("in_s3")
def test_parts_that_the_store_has_lost_are_made_anew(full_round, work_once, work, line):
    scene = full_round()
    work_once()
    lost = ShardedPass.objects.get().upload

    def knows_it_no_more(request):
        # As S3 itself says it, in place of the store of the tests.
        if lost in request.path:
            request.answer(404, b"<Error><Code>NoSuchUpload</Code></Error>")

    line.fault = knows_it_no_more
    work()

    assert scene.state == "C"
    assert kinds() == [*["shard_wanted"] * 3, "shards_void", *THREE_SHARDS]


@pytest.mark.usefixtures("in_s3")
def test_a_lost_base_ends_the_training_instead_of_making_its_shards_for_ever(
    full_round, work_once, bucket, bring_forward
):
    scene = full_round()
    work_once()
    base = Checkpoint.objects.get(model=scene.model_id, round=0).sha256
    bucket.delete(base)
    for copy in (get_storage().root / "cache").glob(f"{base}*"):
        copy.unlink()

    for _ in range(3 * (MAX_ATTEMPTS + 1)):
        work_once()
        bring_forward()

    assert scene.state == "E"
    assert kinds() == ["shard_wanted"] * 3


@pytest.mark.usefixtures("in_s3")
def test_a_shard_of_a_pass_that_is_over_ends_no_training(full_round, work_once, work):
    scene = full_round()
    work_once()
    Event.objects.filter(kind="shard_wanted").update(failures=MAX_ATTEMPTS)
    sharding.begin(scene.id, 0)

    work()

    assert scene.state == "C"


@pytest.mark.usefixtures("in_s3")
def test_the_shards_of_a_training_that_was_stopped_are_not_kept(full_round, work_once, bucket, settings):
    settings.ORPHAN_GRACE_SECONDS = 0
    scene = full_round()
    work_once()
    training = Training.objects.get(pk=scene.id)

    lifecycle.stop(training, by=training.actor)
    sweeps.remove_abandoned_shards()

    assert bucket.unfinished() == 0


@pytest.mark.usefixtures("in_s3")
def test_what_is_being_made_is_kept_and_the_rest_goes_in_time(full_round, work_once, work, bucket, settings):
    settings.ORPHAN_GRACE_SECONDS = 0
    full_round()
    work_once()
    get_storage().assembly.begin()

    sweeps.remove_abandoned_shards()
    assert bucket.unfinished() == 1
    work()
    assert len(bucket.keys("/parts/")) == 1
    sweeps.remove_abandoned_shards()

    assert (bucket.unfinished(), bucket.keys("/parts/")) == (0, [])
