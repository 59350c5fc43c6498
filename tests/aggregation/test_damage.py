"""Updates that are no longer what came in, or cannot be read: an error names them, and nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest

from folkmoot.aggregation import aggregate_files, find_strategy
from folkmoot.errors import DamagedUpdate, Unavailable
from folkmoot.tensors import TensorFile, write_tensors
from folkmoot.tensors.checksums import BLOCK_BYTES, CHECKSUM_BYTES, block_checksums

# One that reads the updates once, one that measures first, one that reads each value by itself.
NAMES = ["FedAvg", "Krum", "Median"]


@pytest.fixture
def sealed_round(a_round):
    """Three blocks; the second is all statistics and counters, which no pass measures."""
    random = np.random.default_rng(2)

    def tensors():
        return {
            "a": random.standard_normal(BLOCK_BYTES // 4).astype("f4"),
            "b.running_mean": random.standard_normal(BLOCK_BYTES // 4).astype("f4"),
            "c": random.standard_normal(1001).astype("f4"),
        }

    a_round.begin_with(tensors())
    for _ in range(5):
        a_round.receive(tensors())
    a_round.updates = [replace(update, checksums=checksums_of(update.path)) for update in a_round.updates]
    return a_round


def checksums_of(path) -> bytes:
    return block_checksums(path.read_bytes()[TensorFile.open(path).data_offset :])


def assert_named(a_round, name, update, strategy_named, match="") -> None:
    with pytest.raises(DamagedUpdate, match=f"^update {update.id} is damaged: {match}") as caught:
        a_round.aggregate(strategy_named(name))
    assert caught.value.update_id == update.id
    assert a_round.left_behind() == set()


@pytest.mark.parametrize("name", NAMES)
def test_whole_updates_pass(sealed_round, strategy_named, name):
    expected = sealed_round.aggregate(strategy_named(name)).sha256

    sealed_round.updates = [replace(update, checksums=b"") for update in sealed_round.updates]
    assert sealed_round.aggregate(strategy_named(name)).sha256 == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "place",
    [
        pytest.param(0, id="the header's length"),
        pytest.param(20, id="the header"),
        pytest.param(-1, id="the last byte"),
        pytest.param(-4005, id="the second block, of statistics"),
        pytest.param(-4005 - BLOCK_BYTES, id="the first block"),
    ],
)
def test_a_bit_that_flipped_anywhere_is_found(sealed_round, strategy_named, name, place):
    update = sealed_round.updates[3]
    content = bytearray(update.path.read_bytes())
    content[place] ^= 0x10
    update.path.write_bytes(content)

    assert_named(sealed_round, name, update, strategy_named)


@pytest.mark.parametrize("seed", range(25))
def test_a_bit_that_flipped_somewhere_is_found(sealed_round, strategy_named, seed):
    random = np.random.default_rng(seed)
    update = sealed_round.updates[int(random.integers(5))]
    content = bytearray(update.path.read_bytes())
    content[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
    update.path.write_bytes(content)

    assert_named(sealed_round, NAMES[seed % 3], update, strategy_named)


@pytest.mark.parametrize("name", NAMES)
def test_the_pass_that_measures_looks_too(sealed_round, strategy_named, name):
    """So that no update is screened out for what it did not say."""
    update = sealed_round.updates[3]
    content = bytearray(update.path.read_bytes())
    content[-1] ^= 0x7F
    update.path.write_bytes(content)

    with pytest.raises(DamagedUpdate, match="its block 2 is not what it was when it came in"):
        sealed_round.aggregate(strategy_named(name, screen={"score": "norm", "bound": 1e-9}))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, CHECKSUM_BYTES, 3 * CHECKSUM_BYTES - 1])
def test_too_few_checksums_are_not_those_of_the_update(sealed_round, strategy_named, name, length):
    update = sealed_round.updates[0] = replace(
        sealed_round.updates[0], checksums=sealed_round.updates[0].checksums[:length]
    )

    assert_named(sealed_round, name, update, strategy_named)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", [1, 4000, 100_000])
def test_an_update_that_lost_its_end_is_found(sealed_round, strategy_named, name, cut):
    update = sealed_round.updates[3]
    update.path.write_bytes(update.path.read_bytes()[:-cut])

    assert_named(sealed_round, name, update, strategy_named)


@pytest.mark.parametrize("name", NAMES)
def test_checksums_of_what_is_elsewhere_are_verified_too(sealed_round, strategy_named, name):
    class Elsewhere:
        def __init__(self, content):
            self.content, self.size = content, len(content)

        def read_into(self, offset, buffer):
            buffer[:] = self.content[offset : offset + len(buffer)]

    content = bytearray(sealed_round.updates[3].path.read_bytes())
    content[-1] ^= 1
    there = replace(sealed_round.updates[3], path=Elsewhere(bytes(content)))

    with pytest.raises(DamagedUpdate, match="update 00003 is damaged: its block 2"):
        sealed_round.aggregate(strategy_named(name), [*sealed_round.updates[:3], there, sealed_round.updates[4]])


# what cannot be read


def a_directory(path) -> None:
    path.mkdir()


def a_loop_of_links(path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [a_directory, a_loop_of_links])
def test_an_update_that_cannot_be_read_may_be_tried_again(sealed_round, make):
    """Its file is there, so that nothing says that it is damaged."""
    path = sealed_round.updates[1].path
    path.unlink()
    make(path)

    with pytest.raises(Unavailable, match=r"^update 00001 cannot be read: "):
        sealed_round.aggregate(find_strategy("FedAvg", {}))

    assert sealed_round.left_behind() == set()


def test_a_source_that_fails_may_be_tried_again(sealed_round):
    class Failing:
        size = sealed_round.base.stat().st_size

        def read_into(self, offset, buffer):
            raise OSError(5, "Input/output error")

    away = replace(sealed_round.updates[0], path=Failing())

    with pytest.raises(Unavailable, match="update 00000 cannot be read: Input/output error"):
        aggregate_files(find_strategy("FedAvg", {}), sealed_round.base, [away], sealed_round.output)


SHRINKING = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    from folkmoot.aggregation import Update, aggregate_files, find_strategy
    from folkmoot.aggregation.sources import FileSource
    from folkmoot.errors import FolkmootError

    folder, size = Path(sys.argv[1]), int(sys.argv[3])

    class Meanwhile:
        '''Once it is looked at, the one before it has been opened, and loses its end.'''
        def __init__(self, path):
            self._file = FileSource(path)
            self.size = self._file.size
        def read_into(self, offset, buffer):
            os.truncate(folder / "0", size)
            self._file.read_into(offset, buffer)

    updates = [Update("0", folder / "0", 1), Update("1", Meanwhile(folder / "1"), 1)]
    try:
        aggregate_files(find_strategy(sys.argv[2], {"scores": True}), folder / "base", updates, folder / "output")
    except FolkmootError as error:
        print(type(error).__name__, error)
""")


@pytest.mark.parametrize("name", ["FedAvg", "Median"])
@pytest.mark.parametrize("size", [0, 5000, 1_500_000])
def test_a_file_that_shrinks_while_it_is_read_does_not_end_the_process(tmp_path, name, size):
    """To look at a page that is mapped and gone is a signal, SIGBUS, which nobody catches."""
    for each in ("base", "0", "1"):
        write_tensors(tmp_path / each, {"w": np.ones(500_000, "f4")})

    command = [sys.executable, "-c", SHRINKING, str(tmp_path), name, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("DamagedUpdate update 0", "Unavailable update 0"))
    assert not (tmp_path / "output").exists()
