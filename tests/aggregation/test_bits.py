"""The same updates give the same bytes, whoever computes which of them and whenever they came."""

from __future__ import annotations

import numpy as np
import pytest

from folkmoot.aggregation import strategies
from folkmoot.aggregation.sources import FileSource
from folkmoot.tensors import write_tensors
from folkmoot.tensors.checksums import BLOCK_BYTES
from folkmoot.tensors.schema import BFLOAT16

COMMON = {"clip": 200.0, "scores": True, "screen": {"score": "relative_norm", "bound": 50}}


def tensors(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Nearly four blocks, which end within tensors, and pieces that follow different rules."""
    return {
        "a.weight": random.standard_normal(BLOCK_BYTES // 4 + 1001).astype("f4"),
        "b.weight": random.standard_normal((333, 101)),
        "bn.running_var": random.uniform(0, 2, 3001).astype("f4"),
        "c.weight": random.standard_normal(BLOCK_BYTES // 4).astype("f4"),
        "half": random.standard_normal(2001).astype("f2"),
        "brain": random.standard_normal(2003).astype(BFLOAT16),
        "n": random.integers(-(2**40), 2**40, 1001),
        "bn.num_batches_tracked": random.integers(0, 2**40, ()),
        "mask": random.random(4001) < 0.5,
    }


@pytest.fixture
def a_long_round(a_round):
    random = np.random.default_rng(8)
    a_round.begin_with(tensors(random))
    for _ in range(7):
        metrics = {"local_steps": int(random.integers(1, 9)), "loss": float(random.uniform(0.1, 2))}
        a_round.receive(tensors(random), int(random.integers(1, 10_000)), metrics=metrics)
    assert a_round.base.stat().st_size > 3 * BLOCK_BYTES
    return a_round


def everything(a_round, strategy, **options):
    """All that comes out, but for how long it took."""
    report = a_round.aggregate(strategy, **options)
    state = (a_round.folder / "next state").read_bytes() if strategy.keeps_state else b""
    assert (report.state.num_bytes if report.state else 0) == len(state)
    return a_round.output.read_bytes(), state, sorted(report.scores.items()), report.sha256, report.state


@pytest.mark.parametrize("options", [{}, COMMON], ids=["plain", "clipped and screened"])
@pytest.mark.parametrize("name", sorted(strategies()))
def test_neither_order_nor_threads_nor_blocks_at_once_change_a_bit(
    a_long_round, for_strategy, strategy_named, name, options
):
    strategy = strategy_named(name, **options)
    for_strategy(a_long_round, strategy, change=0.25)
    if name == "FedBuff":
        write_tensors(a_long_round.folder / "old", tensors(np.random.default_rng(9)))
        late = a_long_round.updates[3]
        a_long_round.updates[3] = type(late)(
            late.id, late.path, late.num_examples, base=a_long_round.folder / "old", staleness=2
        )
    if strategy.keeps_state:  # one round before, so that there is a state to go on from
        a_long_round.aggregate(strategy)
        a_long_round.state = (a_long_round.folder / "next state").rename(a_long_round.folder / "state")

    expected = everything(a_long_round, strategy, threads=1, blocks_at_once=1)

    shuffled = np.random.default_rng(1).permutation(np.array(a_long_round.updates, object)).tolist()
    for threads, blocks_at_once in ((2, 3), (5, 1), (1, 100)):
        shuffled = [*shuffled[2:], *shuffled[:2]]
        options = {"threads": threads, "blocks_at_once": blocks_at_once}
        assert everything(a_long_round, strategy, updates=shuffled, **options) == expected


class Elsewhere:
    """A file that is no file to us."""

    def __init__(self, path) -> None:
        self._file = FileSource(path)
        self.size = self._file.size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._file.read_into(offset, buffer)


@pytest.mark.parametrize("name", ["FedAvg", "Median", "Bulyan", "RFA", "FedAdam", "SCAFFOLD"])
def test_where_the_updates_lie_does_not_change_a_bit(a_long_round, for_strategy, strategy_named, name):
    """Mapped files are looked at where they are, others are copied into buffers that are used again and again."""
    strategy = strategy_named(name, **COMMON)
    for_strategy(a_long_round, strategy, change=0.25)
    expected = everything(a_long_round, strategy)

    elsewhere = [
        type(update)(update.id, Elsewhere(update.path), update.num_examples, update.metrics)
        for update in a_long_round.updates
    ]

    assert everything(a_long_round, strategy, updates=elsewhere) == expected


@pytest.mark.parametrize(("name", "same"), [("FedProx", "FedAvg"), ("FedDC", "FedAvg")])
def test_what_is_fedavg_to_the_server_gives_its_bits(a_long_round, strategy_named, name, same):
    assert everything(a_long_round, strategy_named(name)) == everything(a_long_round, strategy_named(same))
