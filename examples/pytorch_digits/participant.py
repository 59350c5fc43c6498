"""A participant: `python participant.py NUMBER`, with FOLKMOOT_URL and FOLKMOOT_TOKEN in the environment."""

from __future__ import annotations

import logging
import sys

import torch

import digits
from folkmoot.client import Participant

logging.basicConfig(format="%(asctime)s %(message)s")
logging.getLogger("folkmoot").setLevel(logging.INFO)

shares, _ = digits.load()
images, labels = shares[int(sys.argv[1])]
network = digits.new_network()
app = Participant.from_env()


def put_in(weights):
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})


@app.train
def train(weights, task):
    put_in(weights)
    loss = digits.train(network, images, labels, epochs=task.local["epochs"], seed=task.round)
    trained = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return trained, len(labels), {"loss": loss}


@app.evaluate
def evaluate(weights, task):
    put_in(weights)
    return len(labels), {"accuracy": digits.accuracy(network, images, labels)}


app.run()
