"""One participant, as a program: `python -m folkmoot.demo.participant EXAMPLES NUMBER`.

It says on its standard output, in a line of JSON each, when it is ready and when it begins and ends to train.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import numpy as np

from folkmoot.client import Participant, Task
from folkmoot.client.work import Metrics, Weights
from folkmoot.demo import network
from folkmoot.demo.examples import Examples

READY = "ready"
TRAINING = "training"
TRAINED = "trained"


def train_one_round(
    weights: network.Weights, examples: Examples, recipe: network.Recipe, *, round: int, number: int
) -> float:
    """What participant `number` does to `weights` in a round, with a hub or alone; returns the loss."""
    return network.train(weights, examples, recipe, np.random.default_rng([recipe.seed, round, number]))


def main() -> None:
    examples, number = Examples.load(Path(sys.argv[1])), int(sys.argv[2])
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("folkmoot").setLevel(logging.INFO)
    app = Participant.from_env()

    @app.train
    def train(weights: Weights, task: Task) -> tuple[Weights, int, Metrics]:
        _say(TRAINING, round=task.round)
        loss = train_one_round(weights, examples, network.Recipe(**task.local), round=task.round, number=number)
        _say(TRAINED, round=task.round)
        return weights, len(examples), {"loss": loss}

    @app.evaluate
    def evaluate(weights: Weights, task: Task) -> tuple[int, Metrics]:
        loss, accuracy = network.evaluate(weights, examples)
        return len(examples), {"loss": loss, "accuracy": accuracy}

    _say(READY)
    app.run()


def _say(event: str, **details: int) -> None:
    sys.stdout.write(json.dumps({"event": event, "at": time.time(), **details}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
