from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from folkmoot.aggregation import Strategy, Update, aggregate_files, find_strategy
from folkmoot.aggregation.mean import WeightedMean
from folkmoot.aggregation.optimizers import SGD
from folkmoot.aggregation.rounding import round_to
from folkmoot.errors import AggregationFailed, DamagedUpdate, InvalidValue, SchemaMismatch, Unavailable
from folkmoot.tensors import TensorFile, write_tensors
from folkmoot.tensors.checksums import block_checksums
from folkmoot.tensors.schema import BFLOAT16, is_float

FEDAVG = Strategy(WeightedMean(), SGD())


def random_tensors(random: np.random.Generator) -> dict[str, np.ndarray]:
    """A little of every dtype, with sizes that do not divide evenly."""
    return {
        "double": random.standard_normal((3, 37)),
        "single": (random.standard_normal(1013) * 10.0 ** random.integers(-30, 30, 1013)).astype("f4"),
        "brain": random.standard_normal(101).astype(BFLOAT16),
        "half": random.standard_normal((7, 11, 13)).astype("f2"),
        "scalar": np.float32(random.standard_normal()).reshape(()),
        "empty": np.zeros((0, 4), "f4"),
        "i8": random.integers(-(2**40), 2**40, 5, "i8"),
        "u8": random.integers(0, 2**40, 5, "u8"),
        "i4": random.integers(-(2**31), 2**31, 101, "i4"),
        "u4": random.integers(0, 2**32, 101, "u4"),
        "i2": random.integers(-(2**15), 2**15, 101, "i2"),
        "u2": random.integers(0, 2**16, 101, "u2"),
        "i1": random.integers(-128, 128, 101, "i1"),
        "u1": random.integers(0, 256, 101, "u1"),
        "mask": random.random(1001) < 0.5,
    }


def run(a_round, updates=None, strategy=FEDAVG, **options):
    return aggregate_files(strategy, a_round.base, updates or a_round.updates, a_round.output, **options)


def result_of(a_round, **options):
    run(a_round, **options)
    return dict(TensorFile.open(a_round.output))


@pytest.fixture
def random_round(a_round):
    random = np.random.default_rng(3)
    a_round.begin_with(random_tensors(random))
    for _ in range(7):
        a_round.receive(random_tensors(random), int(random.integers(1, 10_000)))
    return a_round


# the values


def slow_mean(a_round, name: str) -> np.ndarray:
    """Whole numbers and truth values are averaged as distances from the base."""
    dtype = a_round.tensors[0][name].dtype
    base = 0.0 if is_float(dtype) else TensorFile.open(a_round.base)[name].astype("f8")
    total = np.float64(0)
    for update, tensors in zip(a_round.updates, a_round.tensors, strict=True):
        total = total + np.float64(update.num_examples) * (tensors[name].astype("f8") - base)
    mean = total / np.float64(sum(update.num_examples for update in a_round.updates))
    return mean.astype(dtype) if is_float(dtype) else (base + np.rint(mean)).astype(dtype)


def test_the_mean_is_exactly_the_float64_mean_rounded_once(random_round):
    result = result_of(random_round)

    for name, tensor in result.items():
        expected = slow_mean(random_round, name)
        np.testing.assert_array_equal(tensor, expected, err_msg=name)
        assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape)


@pytest.mark.parametrize(
    ("exact", "nearest"),
    [
        (1 + 2**-8 + 2**-40, 1 + 2**-7),
        (-(1 + 2**-8 + 2**-40), -(1 + 2**-7)),
        (1 + 2**-8 - 2**-40, 1),
        (1 + 2**-8, 1),
        (2**-134 + 2**-170, 2**-133),
    ],
)
def test_a_bfloat16_is_rounded_once_from_the_exact_value(exact, nearest):
    assert float(round_to(np.array([exact]), BFLOAT16)[0]) == nearest


def test_updates_count_by_their_examples(a_round):
    a_round.begin_with({"w": np.zeros(2, "f4")})
    a_round.receive({"w": np.array([0, 4], "f4")}, num_examples=1)
    a_round.receive({"w": np.array([8, 0], "f4")}, num_examples=3)

    assert result_of(a_round)["w"].tolist() == [6, 1]


def test_whole_numbers_move_by_the_nearest_whole_number_and_halves_by_the_even_one(a_round):
    a_round.begin_with({"n": np.zeros(5, "i8"), "b": np.zeros(3, "?")})
    a_round.receive({"n": np.array([1, 1, 1, -1, -1]), "b": np.array([True, True, False])}, num_examples=1)
    a_round.receive({"n": np.array([1, 2, 4, -2, -4]), "b": np.array([True, False, False])}, num_examples=1)

    result = result_of(a_round)

    assert result["n"].tolist() == [1, 2, 2, -2, -2]  # of 1, 1.5, 2.5, -1.5, -2.5
    assert result["b"].tolist() == [True, False, False]


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_whole_numbers_that_are_the_same_everywhere_stay_what_they_are(a_round, dtype):
    extremes = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max, np.iinfo(dtype).max - 1], dtype)
    a_round.begin_with({"n": np.zeros_like(extremes)})
    for num_examples in (3, 7):
        a_round.receive({"n": extremes}, num_examples)
    once = result_of(a_round)["n"]

    a_round.begin_with({"n": extremes})
    np.testing.assert_array_equal(result_of(a_round)["n"], extremes)
    np.testing.assert_allclose(once.astype("f8"), extremes.astype("f8"), rtol=1e-15)
    assert np.sign(once.astype("f8")).tolist() == np.sign(extremes.astype("f8")).tolist()


def test_whole_numbers_beyond_what_float64_can_hold_are_moved_exactly(a_round):
    large = 2**60 + 1
    a_round.begin_with({"n": np.array([large, large])})
    a_round.receive({"n": np.array([large + 2, large])})
    a_round.receive({"n": np.array([large + 4, large])})

    assert result_of(a_round)["n"].tolist() == [large + 3, large]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_bool_that_is_stored_as_another_byte_than_1_counts_as_one(a_round, size):
    a_round.begin_with({"b": np.zeros(size, "?")})
    a_round.receive({"b": np.zeros(size, "?")}, num_examples=2)
    odd = a_round.receive({"b": np.ones(size, "?")}, num_examples=1)
    odd.path.write_bytes(odd.path.read_bytes()[:-size] + b"\xff" * size)

    assert not result_of(a_round)["b"].any()


def test_a_server_learning_rate_goes_only_part_of_the_way_and_leaves_counters_alone(a_round):
    a_round.begin_with({"w": np.array([1, 2], "f4"), "n": np.array([10])})
    a_round.receive({"w": np.array([3, 2], "f4"), "n": np.array([20])})

    result = result_of(a_round, strategy=find_strategy("FedAvg", {"server_learning_rate": 0.5}))

    assert result["w"].tolist() == [2, 2]
    assert result["n"].tolist() == [20]


def test_a_model_without_values_is_aggregated(a_round):
    a_round.begin_with({"w": np.zeros((0, 3), "f4")})
    a_round.receive({"w": np.zeros((0, 3), "f4")})

    assert result_of(a_round)["w"].shape == (0, 3)


# the same bytes whatever happens


@pytest.fixture
def long_round(a_round):
    """Of many blocks, which end within tensors."""
    random = np.random.default_rng(5)

    def tensors() -> dict[str, np.ndarray]:
        return {name: np.tile(tensor.ravel(), 300) for name, tensor in random_tensors(random).items()}

    a_round.begin_with(tensors())
    for _ in range(3):
        a_round.receive(tensors(), int(random.integers(1, 10_000)))
    return a_round


@pytest.mark.parametrize("blocks_at_once", [1, 2, 3, 100])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_bytes_do_not_depend_on_threads_or_on_how_much_is_read_at_once(long_round, threads, blocks_at_once):
    expected = run(long_round).sha256

    assert run(long_round, threads=threads, blocks_at_once=blocks_at_once).sha256 == expected


def test_the_bytes_do_not_depend_on_the_order_of_arrival(random_round):
    expected = run(random_round).sha256

    for seed in range(20):
        shuffled = np.random.default_rng(seed).permutation(np.array(random_round.updates, object))
        assert run(random_round, updates=list(shuffled)).sha256 == expected


def test_the_sum_is_taken_in_the_order_of_the_ids(a_round):
    a_round.begin_with({"w": np.zeros(1)})
    for id_, value in (("b", 1.0), ("a", 1e100), ("c", -1e100)):
        a_round.receive({"w": np.array([value])}, id=id_)

    assert result_of(a_round)["w"].tolist() == [0.0]  # in the order of arrival too; but not as a, c, b
    renamed = [replace(update, id={"a": "a", "c": "b", "b": "c"}[update.id]) for update in a_round.updates]
    run(a_round, updates=renamed)
    assert TensorFile.open(a_round.output)["w"].tolist() == [1 / 3]


def test_the_result_is_a_canonical_file_of_the_models_schema(random_round):
    report = run(random_round)

    output = TensorFile.open(random_round.output)
    assert output.is_canonical
    assert output.schema == TensorFile.open(random_round.base).schema
    assert report.sha256 == hashlib.sha256(random_round.output.read_bytes()).hexdigest()
    assert report.num_bytes == output.num_bytes
    assert report.num_bytes_read == 7 * output.num_bytes
    assert report.num_updates == 7
    assert report.seconds > 0


def test_the_base_may_be_replaced_by_the_result(random_round):
    expected = run(random_round).sha256

    aggregate_files(FEDAVG, random_round.base, random_round.updates, random_round.base)

    assert hashlib.sha256(random_round.base.read_bytes()).hexdigest() == expected


# what cannot be aggregated


def assert_fails(a_round, error, message, **options):
    with pytest.raises(error, match=message):
        run(a_round, **options)
    assert a_round.left_behind() == set()


@pytest.fixture
def small_round(a_round):
    a_round.begin_with({"layer.weight": np.ones((2, 3), "f4"), "layer.bias": np.ones(2, "f4"), "n": np.array([1])})
    for _ in range(3):
        a_round.receive({"layer.weight": np.ones((2, 3), "f4"), "layer.bias": np.ones(2, "f4"), "n": np.array([1])})
    return a_round


def test_no_updates_are_refused(small_round):
    with pytest.raises(AggregationFailed, match="no updates"):
        aggregate_files(FEDAVG, small_round.base, [], small_round.output)

    assert small_round.left_behind() == set()


def test_two_updates_of_one_id_are_refused(small_round):
    twins = [replace(update, id="hospital") for update in small_round.updates[:2]]

    assert_fails(small_round, InvalidValue, "two updates have the id hospital", updates=twins)


@pytest.mark.parametrize("num_examples", [0, -5, 2.5, True, float("nan")])
def test_an_update_of_no_examples_is_refused(small_round, num_examples):
    odd = replace(small_round.updates[0], id="hospital", num_examples=num_examples)

    assert_fails(small_round, InvalidValue, "update hospital has num_examples", updates=[odd])


def test_an_update_with_another_shape_is_named_with_its_tensor(small_round):
    wrong = {"layer.weight": np.ones((2, 3), "f4"), "layer.bias": np.ones(3, "f4"), "n": np.array([1])}
    small_round.receive(wrong, id="hospital")

    message = r"^update hospital does not fit the model: layer.bias is \(3,\), expected \(2,\)$"
    assert_fails(small_round, SchemaMismatch, message)


def test_an_update_of_the_same_size_and_other_tensors_is_named(small_round):
    wrong = {"layer.weight": np.ones((3, 2), "f4"), "layer.bias": np.ones(2, "f4"), "n": np.array([1])}
    small_round.receive(wrong, id="hospital")

    assert_fails(small_round, SchemaMismatch, "update hospital does not fit the model: layer.weight")


def test_an_update_that_is_no_tensor_file_is_named(small_round):
    small_round.updates[1].path.write_bytes(bytes(small_round.base.stat().st_size))

    assert_fails(small_round, SchemaMismatch, "update 00001 is damaged")


def test_an_update_that_is_gone_is_named(small_round):
    small_round.updates[1].path.unlink()

    assert_fails(small_round, DamagedUpdate, "update 00001 is damaged: its file is gone")


def test_a_base_that_is_not_canonical_is_refused(small_round):
    text = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]} }'
    small_round.base.write_bytes(len(text).to_bytes(8, "little") + text + b"x")

    assert_fails(small_round, AggregationFailed, "not a canonical file")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_result_that_is_not_finite_is_named_with_its_tensor(small_round, value):
    small_round.output.write_bytes(b"before")
    bad = {"layer.weight": np.ones((2, 3), "f4"), "layer.bias": np.ones(2, "f4"), "n": np.array([1])}
    bad["layer.weight"][1, 2] = value
    small_round.receive(bad)

    with pytest.raises(AggregationFailed, match=f"not finite: layer.weight holds {value}"):
        run(small_round)

    assert small_round.output.read_bytes() == b"before"
    assert small_round.left_behind() == {"output"}


def test_a_mean_that_overflows_is_found(a_round):
    a_round.begin_with({"w": np.zeros(3)})
    for _ in range(2):
        a_round.receive({"w": np.array([0, 1.7e308, 0])})

    assert_fails(a_round, AggregationFailed, "not finite: w holds inf")


def test_a_huge_value_that_the_dtype_cannot_hold_is_found_after_rounding(a_round):
    a_round.begin_with({"w": np.zeros(3, "f2")})
    a_round.receive({"w": np.array([0, 6e4, 0], "f2")})

    assert_fails(a_round, AggregationFailed, "not finite: w holds inf", strategy=Strategy(WeightedMean(), SGD(2.0)))


def test_a_step_of_the_server_that_is_not_finite_is_found(a_round):
    class Diverging(SGD):
        def step(self, aggregate, *, base, state):
            aggregate[2] = np.nan

    a_round.begin_with({"w": np.zeros(3, "f4")})
    a_round.receive({"w": np.zeros(3, "f4")})

    assert_fails(a_round, AggregationFailed, "not finite: w holds nan", strategy=Strategy(WeightedMean(), Diverging()))


def test_the_threads_end_with_the_error(small_round):
    small_round.updates[2].path.unlink()
    before = threading.active_count()

    assert_fails(small_round, DamagedUpdate, "00002")

    assert threading.active_count() == before


def test_no_file_stays_open(small_round):
    before = len(list(Path("/proc/self/fd").iterdir()))

    for _ in range(3):
        run(small_round)

    assert len(list(Path("/proc/self/fd").iterdir())) == before


# other sources and many updates


class Memory:
    """An update that lies in memory, as one in an object store would lie elsewhere."""

    def __init__(self, path: Path, cut_to: int | None = None) -> None:
        self.content = path.read_bytes()
        self.size = len(self.content)
        self.readable = self.content[:cut_to]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        piece = self.readable[offset : offset + len(buffer)]
        if len(piece) < len(buffer):
            raise EOFError
        buffer[:] = piece


def test_updates_may_come_from_elsewhere_than_files(random_round):
    expected = run(random_round).sha256
    elsewhere = [replace(update, path=Memory(update.path)) for update in random_round.updates]

    assert run(random_round, updates=elsewhere).sha256 == expected


def test_a_source_with_another_layout_is_named(small_round, tmp_path):
    write_tensors(tmp_path / "base2", {"other": np.zeros(3)})
    odd = Update("hospital", Memory(tmp_path / "base2"), 1)
    (tmp_path / "base2").unlink()

    assert_fails(small_round, SchemaMismatch, "update hospital does not have the byte layout", updates=[odd])


def test_an_update_that_ends_while_it_is_read_is_named(small_round):
    size = small_round.base.stat().st_size
    odd = replace(small_round.updates[1], path=Memory(small_round.updates[1].path, cut_to=size - 1))

    assert_fails(small_round, DamagedUpdate, "update 00001 is damaged: it ends too early", updates=[odd])


MANY = textwrap.dedent("""
    import resource, sys
    from pathlib import Path
    import numpy as np
    from folkmoot.aggregation import Update, aggregate_files, find_strategy
    from folkmoot.tensors import TensorFile

    folder, num_updates, num_files, limit = Path(sys.argv[1]), *map(int, sys.argv[2:])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    def anonymous():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    def merge(count):
        updates = [Update(f"{i:05}", folder / str(i % num_files), 1) for i in range(count)]
        aggregate_files(find_strategy("FedAvg", {}), folder / "0", updates, folder / "output", threads=2)
        return anonymous()

    merge(1000)  # compiles what is compiled
    few, many = merge(10), merge(num_updates)
    value = TensorFile.open(folder / "output")["w"]
    print(many - few, value.min(), value.max())
""")


@pytest.mark.parametrize("limit", [40, 1024])
def test_three_thousand_updates_need_few_open_files_and_no_more_memory_than_ten(tmp_path, limit):
    for number in range(20):
        write_tensors(tmp_path / str(number), {"w": np.full(10_000, number, "f4")})

    command = [sys.executable, "-c", MANY, tmp_path, "3000", "20", str(limit)]
    output = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout

    grown, lowest, highest = output.split()
    assert (float(lowest), float(highest)) == (9.5, 9.5)
    assert int(grown) < 16_000  # in kB: the list of updates, nothing near 3,000 blocks


def test_memory_is_some_blocks_and_not_the_model(tmp_path):
    write_tensors(tmp_path / "base", {"w": np.zeros(25_000_000, "f4")})
    update = Update("a", tmp_path / "base", 1)

    aggregate_files(FEDAVG, tmp_path / "base", [update], tmp_path / "output")  # compiles what is compiled
    tracemalloc.start()
    try:
        aggregate_files(FEDAVG, tmp_path / "base", [update], tmp_path / "output", threads=2)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000  # the model has 100 MB
    finally:
        tracemalloc.stop()


def test_a_model_that_cannot_be_read_is_told_from_an_update(small_round):
    small_round.base.unlink()

    with pytest.raises(Unavailable, match="the model that the round began with cannot be read: No such file"):
        run(small_round)


def test_checksums_of_another_number_of_bytes_are_refused(small_round):
    odd = replace(small_round.updates[0], checksums=bytes(16))

    assert_fails(small_round, DamagedUpdate, "update 00000 is damaged: its checksums are not of so", updates=[odd])


def test_nan_is_not_hidden_by_an_order_of_values(a_round):
    a_round.begin_with({"w": np.zeros(3, "f4")})
    for value in (1, 2, np.nan, 4, 5):
        a_round.receive({"w": np.full(3, value, "f4")})

    assert_fails(a_round, AggregationFailed, "an update holds NaN", strategy=find_strategy("Median", {}))


def test_a_state_that_overflows_is_told_from_the_aggregate(a_round):
    a_round.begin_with({"w": np.zeros(2, "f4")})
    a_round.receive({"w": np.full(2, 3e38, "f4")})
    state = a_round.folder / "state"

    message = "the strategy's state is not finite: w holds inf"
    assert_fails(a_round, AggregationFailed, message, strategy=find_strategy("FedAdam", {}), state_output=state)


def test_a_number_of_examples_may_be_numpys(small_round):
    counted = [replace(update, num_examples=np.int64(2)) for update in small_round.updates]

    assert run(small_round, updates=counted).sha256 == run(small_round).sha256


class Counting(Memory):
    """Counts what is read of its values."""

    def __init__(self, path: Path, header_bytes: int) -> None:
        super().__init__(path)
        self.header_bytes, self.num_bytes_read = header_bytes, 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        super().read_into(offset, buffer)
        if offset >= self.header_bytes:
            self.num_bytes_read += len(buffer)


@pytest.mark.parametrize(
    ("name", "options", "passes"),
    [
        ("FedAvg", {}, 1),
        ("FedAvg", {"scores": True}, 2),
        ("Median", {}, 1),
        ("Median", {"clip": 1.0}, 2),
        ("TrimmedMean", {"scores": True}, 2),
        ("RFA", {}, 2),
        ("MultiKrum", {"num_byzantine": 0, "num_selected": 7}, 2),
    ],
)
def test_every_update_is_read_once_for_each_pass_wherever_it_lies(random_round, name, options, passes):
    header = TensorFile.open(random_round.base).data_offset
    counted = [replace(update, path=Counting(update.path, header)) for update in random_round.updates]

    report = run(random_round, updates=counted, strategy=find_strategy(name, options))

    size = random_round.base.stat().st_size
    assert [each.path.num_bytes_read for each in counted] == [passes * (size - header)] * 7
    assert report.num_bytes_read == passes * 7 * size


class Changing(Memory):
    """Holds other bytes the second time that it is read."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        super().read_into(offset, buffer)
        if offset > 1000:
            self.readable = self.readable[:-1] + b"\x7f"


@pytest.mark.parametrize("name", ["FedAvg", "Median", "RFA"])
def test_what_was_verified_is_what_is_merged(random_round, name):
    """Bytes that change between two reads are either the right ones or found out, never merged unseen."""
    expected = run(random_round, strategy=find_strategy(name, {})).sha256
    checked = [
        replace(update, path=Changing(update.path), checksums=block_checksums(TensorFile.open(update.path).data))
        for update in random_round.updates
    ]

    try:
        found = run(random_round, updates=checked, strategy=find_strategy(name, {})).sha256
    except DamagedUpdate:
        found = expected

    assert found == expected


KRUM = textwrap.dedent("""
    import sys
    from pathlib import Path
    from folkmoot.aggregation import Update, aggregate_files, find_strategy

    folder, count = Path(sys.argv[1]), int(sys.argv[2])

    def anonymous():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    def merge(count):
        updates = [Update(f"{i:05}", folder / str(i % 20), 1) for i in range(count)]
        krum = find_strategy("Krum", {"num_byzantine": 2})
        aggregate_files(krum, folder / "0", updates, folder / "output", threads=2)
        return anonymous()

    merge(200)  # compiles what is compiled
    few, many = merge(20), merge(count)
    print(many - few)
""")


def test_the_memory_that_inner_products_take_does_not_grow_with_the_model(tmp_path):
    for number in range(20):
        write_tensors(tmp_path / str(number), {"w": np.full(1_000_000, number, "f4")})

    command = [sys.executable, "-c", KRUM, str(tmp_path), "400"]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert grown < 40_000  # in kB: some matrices of 400 x 400 float64, 1.3 MB each, not one for each of 16 blocks twice
