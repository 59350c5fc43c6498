"""R2 where many workers make a model: they are killed in the middle of a shard, and as they join them."""

from __future__ import annotations

import numpy as np
import pytest
from buckets import files_in, storage_settings
from disturbing import die_at_each
from harness import as_file, play_round, wait_until
from invariants import read

from object_store import object_store

pytestmark = pytest.mark.timeout(300)

SHARD_BYTES = 5 * 2**20
GRACE = 4
POINTS = ("shard_wanted.summed:2", "round_full.blob_written")


@pytest.fixture(scope="module")
def bucket():
    with object_store() as store:
        yield store.new_bucket()


@pytest.fixture
def settings(bucket):
    sharded = {"FOLKMOOT_SHARD_BYTES": str(SHARD_BYTES), "FOLKMOOT_ORPHAN_GRACE_SECONDS": str(GRACE)}
    return storage_settings(bucket.url(), **sharded)


@pytest.fixture
def idle_production(idle_production, bucket):
    with files_in(bucket, idle_production.place):
        yield idle_production


def test_workers_killed_in_the_middle_of_a_shard_and_of_joining_them_leave_the_model_alone(idle_production, bucket):
    production = idle_production
    production.server.start()
    production.beat.start()
    training_id = full_round(production)
    die_at_each(production.worker, POINTS)
    production.wait_for_end(training_id)

    # That its bytes are those that one worker makes of the whole is among the invariants of every hub.
    shards = read(production.place, "SELECT attempts FROM outbox_event WHERE kind = 'shard_wanted'")
    assert len(shards) == 3
    assert sum(each["attempts"] for each in shards) >= 4  # one of them was begun in vain
    wait_until(lambda: not left_over(bucket), "what nobody needs to be removed")


def left_over(bucket):
    """Parts, whole or not, and second copies."""
    digests = bucket.digests()
    return bucket.unfinished() + len(bucket.keys("/parts/")) + len(digests) - len(set(digests))


def full_round(world):
    """A training of three shards, and their updates."""
    weights = np.random.default_rng(3).normal(size=(2 * SHARD_BYTES + 2**20) // 4).astype("f4")
    form = {"name": "large", "description": "for three workers"}
    files = {"model_file": ("large.safetensors", as_file({"w": weights}))}
    model_id = world.call(world.actor, "POST", "/api/models/", data=form, files=files).json()["model_id"]
    accounts = world.participants(2)
    training_id = world.started(accounts, rounds=1, model_id=model_id, tests="never")
    play_round(world, accounts, training_id, 0)
    return training_id
