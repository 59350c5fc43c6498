"""A participant as a process of its own, for tests to kill: it says when it trains, and waits to be let go."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # what the harness needs of all tests

from harness import num_examples, trained

from folkmoot.client import Participant

name, waits = sys.argv[1], sys.argv[2] == "waits"
app = Participant.from_env()


@app.train
def train(weights, task):
    sys.stdout.write(f"training round {task.round}\n")
    sys.stdout.flush()
    if waits:
        sys.stdin.read()
    return trained(weights, name, task.round), num_examples(name), {"loss": 1.0}


@app.evaluate
def evaluate(weights, task):
    return num_examples(name), {"accuracy": 0.5}


sys.stdout.write("ready\n")
sys.stdout.flush()
app.run()
