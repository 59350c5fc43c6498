"""Steer a training of three participants, each a process of its own: `python run.py`, with a hub at FOLKMOOT_URL."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import digits
from folkmoot.client import Hub

PARTICIPANT = Path(__file__).with_name("participant.py")
EPOCHS, ROUNDS = 5, 3

url = os.environ.get("FOLKMOOT_URL", "http://127.0.0.1:8000")
shares, held_out = digits.load()
network = digits.new_network()


def register(name, **fields):
    """A user whose name is not taken, with its token."""
    return Hub(url).register(f"{name}-{secrets.token_hex(4)}", secrets.token_urlsafe(), **fields)


users = [register("participant") for _ in shares]
processes = [
    subprocess.Popen(
        [sys.executable, PARTICIPANT, str(number)],
        env={**os.environ, "FOLKMOOT_URL": url, "FOLKMOOT_TOKEN": user["token"]},
    )
    for number, user in enumerate(users)
]
try:
    with tempfile.TemporaryDirectory() as folder, Hub(url, register("actor", actor=True)["token"]) as hub:
        file = Path(folder, "network.pt")
        torch.save(network.state_dict(), file)
        model = hub.upload_model("Digits", "Reads handwritten digits", file)
        training = hub.create_training(
            model,
            ROUNDS,
            clients=[user["id"] for user in users],
            options={"local": {"epochs": EPOCHS}, "round_timeout": 120, "round_retries": 0},
        )
        hub.start(training)
        while (now := hub.training(training))["state"] == "O":
            time.sleep(0.5)
        if now["state"] != "C":
            sys.exit(f"The training ended in state {now['state']}: {now['reason']}")
        hub.download_model(model, file)
        network.load_state_dict(torch.load(file, weights_only=True))
finally:
    for process in processes:
        process.terminate()

alone = [digits.new_network() for _ in shares]
for each, share in zip(alone, shares, strict=True):
    digits.train(each, *share, epochs=EPOCHS * ROUNDS)
together, *each = (f"{digits.accuracy(one, *held_out):.3f}" for one in (network, *alone))
print(f"Accuracy on held-out digits: {together} together; each participant alone: {', '.join(each)}.")
