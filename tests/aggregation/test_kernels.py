"""The compiled loops give the bits of those in NumPy, and these are what they say."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from folkmoot.aggregation.kernels import NUMPY
from folkmoot.aggregation.numpy_kernels import COLUMNS, LANES, comparators
from folkmoot.tensors import write_tensors

COMPILED = pytest.importorskip("folkmoot.aggregation.compiled").COMPILED

# Around the lanes, the columns that are sorted at once and the tiles that stay in the cache.
SIZES = [1, LANES - 1, LANES, LANES + 1, 511, 512, 513, 2048, 8191, 8192, 8193, 20_011]
STRETCH = 2 * COLUMNS
DTYPES = ["f4", "f8"]


def some(random: np.random.Generator, size: int, dtype: str = "f8") -> np.ndarray:
    """Of many orders of magnitude, so that the order of additions shows."""
    return (random.standard_normal(size) * 10.0 ** random.integers(-6, 6, size)).astype(dtype)


def both(work):
    """What NumPy makes of it, after seeing that it is what the compiled loops do to the bit."""
    expected, compiled = work(NUMPY), work(COMPILED)
    np.testing.assert_array_equal(np.asarray(compiled).view("u1"), np.asarray(expected).view("u1"))
    return expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_sums_of_one_to_forty_updates(size, dtype):
    random = np.random.default_rng(size)
    values = [some(random, size, dtype) for _ in range(40)]
    weights = random.uniform(0, 100, 40).tolist()

    for count in [1, 2, 3, 4, 5, 8, 40] if size > 513 else range(1, 41):

        def accumulate(kernels, count=count):
            total = np.ones(size)
            kernels.accumulate(total, values[:count], weights[:count])
            return total

        expected = np.ones(size)
        for each, weight in zip(values[:count], weights[:count], strict=True):
            expected = expected + each.astype("f8") * weight
        np.testing.assert_array_equal(both(accumulate), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_sums_of_deltas(size, dtype):
    random = np.random.default_rng(size)
    values, base = some(random, size, dtype), some(random, size)

    def accumulate(kernels):
        total = np.ones(size)
        kernels.accumulate_deltas(total, values, base, 0.3)
        return total

    np.testing.assert_array_equal(both(accumulate), 1 + (values.astype("f8") - base) * 0.3)


def in_lanes(products: np.ndarray) -> float:
    """The sum as the docstring of kernels.py says: LANES sums side by side, the second half added to the first."""
    lanes = [0.0] * LANES
    for place, product in enumerate(products.tolist()):
        lanes[place % LANES] += product
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [low + high for low, high in zip(lanes[:half], lanes[half:], strict=True)]
    return lanes[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "size"), [*((3, size) for size in SIZES), (1, 1025), (2, 2000), (40, 3000)])
def test_inner_products_of_deltas_with_themselves_and_with_their_mean(n, size, dtype):
    values, bases, deltas = some_deltas(n, size, dtype)
    shares = np.random.default_rng(n).uniform(0, 1, n)

    def mean_products(kernels):
        products = np.ones((n + 1, 2))
        kernels.mean_products(values, bases, shares, STRETCH, products)
        return products

    mean = np.zeros(size)
    for delta, share in zip(deltas, shares, strict=True):
        mean = mean + delta * share
    expected = np.ones((n + 1, 2))
    for start in range(0, size, STRETCH):
        part, of_mean = [delta[start : start + STRETCH] for delta in deltas], mean[start : start + STRETCH]
        expected += [*([in_lanes(row * row), in_lanes(row * of_mean)] for row in part), [in_lanes(of_mean**2), 0]]
    np.testing.assert_array_equal(both(mean_products), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "size"), [(1, COLUMNS), (2, 1), (3, COLUMNS - 1), (7, 2 * COLUMNS + 1), (17, 700), (40, COLUMNS + 1)]
)
def test_inner_products_of_every_two_deltas(n, size, dtype):
    values, bases, deltas = some_deltas(n, size, dtype)

    def inner_products(kernels):
        products = np.ones((n, n))
        kernels.inner_products(values, bases, products)
        return np.tril(products)

    expected = np.ones((n, n))
    for start in range(0, size, COLUMNS):
        part = [delta[start : start + COLUMNS] for delta in deltas]
        expected += [[in_lanes(row * other) for other in part] for row in part]
    np.testing.assert_array_equal(both(inner_products), np.tril(expected))


def some_deltas(n: int, size: int, dtype: str) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Values, what each began with (the first two alike), and the differences."""
    random = np.random.default_rng(n + size)
    values = [some(random, size, dtype) for _ in range(n)]
    bases = [some(random, size, dtype) for _ in range(n)]
    bases[1:2] = bases[:1] if n > 1 else []
    return values, bases, [each.astype("f8") - base for each, base in zip(values, bases, strict=True)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", range(1, 41))
def test_sorting_of_one_to_forty_rows(n, dtype):
    size = 1 + 64 * n % 1100
    values = some(np.random.default_rng(n), n * size, dtype).reshape(n, size)

    def sort(kernels):
        rows = values.copy()
        kernels.sort_columns(rows)
        return rows

    np.testing.assert_array_equal(both(sort), np.sort(values, axis=0))


@pytest.mark.parametrize("n", range(1, 15))
def test_the_network_sorts_whatever_comes(n):
    """What sorts all columns of zeros and ones sorts everything: Knuth, section 5.3.4, theorem Z."""
    columns = (np.arange(2**n)[None] >> np.arange(n)[:, None]) & 1

    for low, high in comparators(n):
        columns[[low, high]] = np.sort(columns[[low, high]], axis=0)

    assert (np.diff(columns, axis=0) >= 0).all()


# whole aggregations

WHOLE = """
import logging, sys
from pathlib import Path
from folkmoot.aggregation import Update, aggregate_files, find_strategy

logging.basicConfig(format="%(message)s", stream=sys.stdout)
folder, n = Path(sys.argv[1]), int(sys.argv[2])
updates = [Update(f"{i:03}", folder / f"update{i}", 1 + i) for i in range(n)]
for name, options in {
    "FedAvg": {"scores": True},
    "CenteredClipping": {"radius": 900.0, "iterations": 2},
    "TrimmedMean": {"trim": 0.2},
    "Bulyan": {"num_byzantine": 1, "clip": 1000.0},
}.items():
    report = aggregate_files(find_strategy(name, options), folder / "base", updates, folder / "output", threads=2)
    print(name, report.sha256, sorted(report.scores.items()))
print("numba" in sys.modules)
"""


def test_with_and_without_numba_the_files_are_the_same(tmp_path):
    random = np.random.default_rng(6)

    def tensors():
        return {"w": random.standard_normal(600_011).astype("f4"), "h": random.standard_normal(5000).astype("f2")}

    write_tensors(tmp_path / "base", tensors())
    for number in range(7):
        write_tensors(tmp_path / f"update{number}", tensors())
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "numba.py").write_text("raise ImportError('there is no numba here')")

    def run(python_path: str) -> list[str]:
        command = [sys.executable, "-c", WHOLE, str(tmp_path), "7"]
        path = os.pathsep.join(filter(None, [python_path, os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()

    with_numba, without = run(""), run(str(absent))

    assert with_numba.pop() == "True"
    assert without.pop() == "False"
    assert without.pop(0).startswith("numba is not installed: large models are aggregated at a fraction of the speed")
    assert without == with_numba
    assert len(with_numba) == 4


def test_little_is_aggregated_without_importing_numba(tmp_path):
    """The import takes longer than a small aggregation."""
    write_tensors(tmp_path / "base", {"w": np.ones(1000, "f4")})
    for number in range(7):
        write_tensors(tmp_path / f"update{number}", {"w": np.ones(1000, "f4")})

    command = [sys.executable, "-c", WHOLE, str(tmp_path), "7"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    assert lines[-1] == "False"
