"""How fast predictions are at the API of a hub of its own: `folkmoot serve` in a process, asked over HTTP in JSON.

A network of 100,000 parameters with a layer of dropout, asked for one row and for 1,000 rows at a time; and the same
network in a training with MC dropout, 100 samples of a batch of 32, against single passes of that batch. Prints medians
in milliseconds; that of dropout, too, as single passes for every 10 samples.
"""

# ruff: noqa: T201 (printing is what it is for)

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

INPUTS, HIDDEN, CLASSES = 64, 1333, 10
SAMPLES, BATCH, ROWS = 100, 32, 1000
COMMAND = "from folkmoot.cli import main; main()"
FULL, QUICK = 100, 15


def main() -> None:
    repeats = parse_arguments().repeats
    rng = np.random.default_rng(0)
    one, batch, many = (rng.normal(size=(rows, INPUTS)).round(4).tolist() for rows in (1, BATCH, ROWS))
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as hub:
        plain = upload(hub)
        sampled = train(hub, upload(hub))
        began = time.perf_counter()
        ask(hub, plain, one)
        print(f"{'the first question':<32} {(time.perf_counter() - began) * 1000:>9.1f} ms")
        median(hub, plain, one, repeats, "1 row")
        single = median(hub, plain, batch, repeats, f"{BATCH} rows")
        median(hub, plain, many, repeats, f"{ROWS:,} rows")
        ask(hub, sampled, batch)
        dropped = median(hub, sampled, batch, max(repeats // 5, 5), f"{BATCH} rows, {SAMPLES} samples")
        print(f"{'single passes per 10 samples':<32} {dropped / single / (SAMPLES / 10):>9.2f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} questions of each kind instead of {FULL}")
    parser.add_argument("--repeats", type=int)
    options = parser.parse_args()
    options.repeats = options.repeats or (QUICK if options.quick else FULL)
    return options


@contextlib.contextmanager
def served(data_dir: Path) -> Iterator[httpx2.Client]:
    """A hub, and its one user's line to it."""
    command = [sys.executable, "-c", COMMAND, "serve", "--port=0", f"--data-dir={data_dir}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 (our own)
        try:
            announced = process.stdout.readline() if process.stdout else ""
            url = next(word for word in announced.split() if word.startswith("http"))
            with httpx2.Client(base_url=f"{url}/api/", timeout=120) as hub:
                account = {"username": "ada", "password": "correct horse battery staple", "client": True}
                token = hub.post("users/", json=account).raise_for_status().json()["token"]
                hub.headers["Authorization"] = f"Token {token}"
                yield hub
        finally:
            process.terminate()


def upload(hub: httpx2.Client) -> str:
    fields = {"name": "network", "description": "of the benchmark"}
    answer = hub.post("models/", data=fields, files={"model_file": network()}).raise_for_status()
    return str(answer.json()["model_id"])


def network() -> bytes:
    import torch

    layers = [torch.nn.Linear(INPUTS, HIDDEN), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(HIDDEN, CLASSES)]
    file = io.BytesIO()
    torch.save(torch.nn.Sequential(*layers), file)
    return file.getvalue()


def train(hub: httpx2.Client, model: str) -> str:
    plan = {"target_num_updates": 1, "aggregation_method": "FedAvg", "uncertainty_method": "MC_DROPOUT"}
    options = {"uncertainty": {"N": SAMPLES}}
    hub.post("trainings/", json={"model_id": model, **plan, "options": options}).raise_for_status()
    return model


def ask(hub: httpx2.Client, model: str, rows: list[Any]) -> None:
    hub.post("inference/", json={"model_id": model, "model_input": rows}).raise_for_status()


def median(hub: httpx2.Client, model: str, rows: list[Any], repeats: int, name: str) -> float:
    """Milliseconds, printed under that name."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        ask(hub, model, rows)
        taken.append((time.perf_counter() - began) * 1000)
    print(f"{name:<32} {statistics.median(taken):>9.1f} ms")
    return statistics.median(taken)


if __name__ == "__main__":
    main()
