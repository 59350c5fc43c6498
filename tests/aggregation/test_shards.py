"""Parts of a model that are aggregated apart: joined in order, they are byte for byte the whole."""

from __future__ import annotations

import io

import numpy as np
import pytest

from folkmoot.aggregation import find_strategy
from folkmoot.aggregation.shards import Shard, aggregate_shard, can_be_sharded, shards_of
from folkmoot.errors import DamagedUpdate
from folkmoot.tensors import Schema, TensorFile
from folkmoot.tensors.checksums import BLOCK_BYTES, block_checksums
from folkmoot.tensors.schema import TensorSpec

SHARDED = ("FedAvg", "FedProx", "Median", "TrimmedMean", "FedBuff")


def model(seed):
    noise = np.random.default_rng(seed)
    return {
        "a": noise.normal(size=(300, 700)).astype("f4"),
        "b": noise.normal(size=90_001).astype("f2"),
        "c": noise.normal(size=50_003),
        "bn.running_var": noise.random(5, dtype="f4"),
        "bn.num_batches_tracked": np.array(seed),
    }


@pytest.fixture
def full_round(a_round):
    a_round.begin_with(model(0))
    for number in range(1, 8):
        a_round.receive(model(number), num_examples=number)
    return a_round


@pytest.mark.parametrize("name", SHARDED)
@pytest.mark.parametrize("shard_bytes", [1, BLOCK_BYTES, 3 * BLOCK_BYTES, 2**30])
def test_the_shards_in_order_are_the_whole(full_round, strategy_named, name, shard_bytes):
    strategy = strategy_named(name)
    report = full_round.aggregate(strategy)
    shards = shards_of(TensorFile.open(full_round.base).schema, shard_bytes)
    joined = io.BytesIO()

    scores = [aggregate_shard(strategy, full_round.base, full_round.updates, each, joined) for each in shards]

    assert joined.getvalue() == full_round.output.read_bytes()
    assert all(each == report.scores for each in scores)


def test_a_shard_is_whole_blocks_and_the_last_one_is_the_rest():
    four_and_a_half = Schema([TensorSpec("w", "F32", (BLOCK_BYTES // 8 * 9,))])

    assert shards_of(four_and_a_half, 2 * BLOCK_BYTES + 1) == [Shard(0, 2), Shard(2, 4), Shard(4, 5)]
    assert shards_of(Schema([TensorSpec("w", "F32", (0,))]), 1) == [Shard(0, 0)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("FedAvg", {"clip": 1.0}),
        ("FedAvg", {"scores": True}),
        ("Krum", {"num_byzantine": 1}),
        ("RFA", {}),
        ("FedAdam", {}),
        ("SCAFFOLD", {}),
    ],
)
def test_what_follows_from_whole_files_or_keeps_state_is_not_sharded(name, options):
    assert not can_be_sharded(find_strategy(name, options))


@pytest.mark.parametrize("name", SHARDED)
def test_what_goes_coordinate_by_coordinate_is_sharded(strategy_named, name):
    assert can_be_sharded(strategy_named(name))


def test_a_shard_names_the_update_that_is_damaged_in_it_and_others_do_not_see_it(a_round, strategy_named):
    a_round.begin_with({"w": np.zeros(3 * BLOCK_BYTES // 4, "f4")})
    for number in range(2):
        update = a_round.receive({"w": np.full(3 * BLOCK_BYTES // 4, number, "f4")})
        sums = block_checksums(TensorFile.open(update.path).data)
        a_round.updates[-1] = update.__class__(update.id, update.path, 1, checksums=sums)
    data = bytearray(update.path.read_bytes())
    data[-1] ^= 1
    update.path.write_bytes(data)
    strategy = strategy_named("FedAvg")

    aggregate_shard(strategy, a_round.base, a_round.updates, Shard(0, 2), io.BytesIO())
    with pytest.raises(DamagedUpdate, match="block 2"):
        aggregate_shard(strategy, a_round.base, a_round.updates, Shard(2, 3), io.BytesIO())
