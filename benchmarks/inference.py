"""How fast predictions are at the API of a hub of its own: `folkmoot serve` in a process, asked over HTTP in JSON.

A network of 100,000 parameters with a layer of dropout, asked for one row and for 1,000 rows at a time; and the same
network in a training with MC dropout, 100 samples of a batch of 32, against single questions about that batch: as a
whole module, and as TorchScript. Prints medians with the targets that they are to stay under, and whether they do.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from common.figures import show
from common.hub import populate, served

INPUTS, HIDDEN, CLASSES = 64, 1333, 10
SAMPLES, BATCH, ROWS = 100, 32, 1000
FULL, QUICK = 100, 15
KINDS = ("module", "TorchScript")


def main() -> None:
    repeats = parse_arguments().repeats
    rng = np.random.default_rng(0)
    one, batch, many = (rng.normal(size=(rows, INPUTS)).round(4).tolist() for rows in (1, BATCH, ROWS))
    with asked() as hub:
        plain = upload(hub, network())
        show("the first question", median(hub, plain, one, 1), "ms")
        show("1 row", median(hub, plain, one, repeats), "ms", target=15)
        show(f"{ROWS:,} rows", median(hub, plain, many, repeats), "ms", target=150)
        for kind in KINDS:
            compare_dropout(hub, kind, batch, repeats)


def compare_dropout(hub: httpx2.Client, kind: str, batch: list[Any], repeats: int) -> None:
    plain, sampled = upload(hub, network(kind)), train(hub, upload(hub, network(kind)))
    for model in (plain, sampled):
        ask(hub, model, batch)
    single = median(hub, plain, batch, repeats)
    dropped = median(hub, sampled, batch, max(repeats // 5, 5))
    show(f"{BATCH} rows, {kind}", single, "ms")
    show(f"{BATCH} rows, {kind}, {SAMPLES} samples", dropped, "ms")
    show("  in questions per 10 samples", dropped / single / (SAMPLES / 10), "", target=5)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} questions of each kind instead of {FULL}")
    parser.add_argument("--repeats", type=int)
    options = parser.parse_args()
    options.repeats = options.repeats or (QUICK if options.quick else FULL)
    return options


@contextlib.contextmanager
def asked() -> Iterator[httpx2.Client]:
    """A line to a hub of its own."""
    with tempfile.TemporaryDirectory() as folder:
        accounts = populate(Path(folder), 1)
        with served(Path(folder), accounts) as hub:
            headers = {"Authorization": f"Token {accounts[0].token}"}
            with httpx2.Client(base_url=f"{hub.url}/api/", headers=headers, timeout=120) as http:
                yield http


def upload(hub: httpx2.Client, file: bytes) -> str:
    fields = {"name": "network", "description": "of the benchmark"}
    answer = hub.post("models/", data=fields, files={"model_file": file}).raise_for_status()
    return str(answer.json()["model_id"])


def network(kind: str = "module") -> bytes:
    import torch

    layers = [torch.nn.Linear(INPUTS, HIDDEN), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(HIDDEN, CLASSES)]
    module, file = torch.nn.Sequential(*layers), io.BytesIO()
    torch.save(module, file) if kind == "module" else torch.jit.save(torch.jit.script(module), file)
    return file.getvalue()


def train(hub: httpx2.Client, model: str) -> str:
    plan = {"target_num_updates": 1, "aggregation_method": "FedAvg", "uncertainty_method": "MC_DROPOUT"}
    options = {"uncertainty": {"N": SAMPLES}}
    hub.post("trainings/", json={"model_id": model, **plan, "options": options}).raise_for_status()
    return model


def ask(hub: httpx2.Client, model: str, rows: list[Any]) -> None:
    hub.post("inference/", json={"model_id": model, "model_input": rows}).raise_for_status()


def median(hub: httpx2.Client, model: str, rows: list[Any], repeats: int) -> float:
    """Milliseconds."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        ask(hub, model, rows)
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
