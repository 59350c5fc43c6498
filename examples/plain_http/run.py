"""Three participants train a model of handwritten digits together, over nothing but HTTP."""

from __future__ import annotations

import argparse
import contextlib
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from digits import EPOCHS, Digits, accuracy, from_bytes, new_model, probabilities, split, to_bytes, train
from participant import Listener, Participant, Poller
from rest import Hub

OPTIONS: dict[str, dict[str, Any]] = {
    "FedAvg": {},
    # What is in `local` is told to the participants; these keep their models near the global one.
    "FedProx": {"local": {"proximal_mu": 0.1}},
    # Local models go from hand to hand for two rounds before they are aggregated.
    "FedDC": {"daisy_chain_period": 2},
}
# So that the example ends even if a participant does not answer.
DEADLINE = {"round_timeout": 120, "round_retries": 0}


@contextlib.contextmanager
def own_hub() -> Iterator[str]:
    """The address of a hub that forgets everything when the block ends."""
    folkmoot = Path(sys.executable).with_name("folkmoot")
    with tempfile.TemporaryDirectory() as folder:
        command = [folkmoot, "serve", "--port", "0", "--data-dir", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                yield re.search(r"http://\S+", server.stdout.readline()).group()
            finally:
                server.terminate()


def new_user(url: str, role: str, **fields: Any) -> tuple[Hub, str]:
    """Register someone under a name that is free; returns their way to the hub, and their id."""
    hub = Hub(url, f"{role}-{secrets.token_hex(4)}", secrets.token_urlsafe())
    return hub, hub.register(**{role: True}, **fields)["id"]


def new_participant(url: str, digits: Digits, *, poll: bool, host: str = "127.0.0.1") -> Participant:
    """One who is told what to do at an endpoint on `host`; or, with `poll`, one who asks the hub."""
    if poll:
        hub, user_id = new_user(url, "client")
        return Participant(hub, user_id, digits, Poller(hub))
    listener = Listener(host)
    hub, user_id = new_user(url, "client", message_endpoint=listener.endpoint)
    return Participant(hub, user_id, digits, listener)


def create_training(
    actor: Hub,
    participants: list[Participant],
    *,
    method: str,
    rounds: int,
    uncertainty: str = "NONE",
    seed: int = 0,
    **options: Any,
) -> str:
    """Upload a model that knows nothing yet, and say who trains it and how; returns the training's id."""
    model_id = actor.upload_model("Digits", to_bytes(new_model(seed)), input_shape=[None, 1, 8, 8])
    return actor.create_training(
        model_id=model_id,
        target_num_updates=rounds,
        aggregation_method=method,
        uncertainty_method=uncertainty,
        metric_names=["accuracy"],
        clients=[participant.id for participant in participants],
        options=OPTIONS[method] | DEADLINE | options,
    )


def run_training(actor: Hub, training_id: str, participants: list[Participant]) -> dict[str, Any]:
    """Start the training, let these work for it, and return it when it is over."""
    at_work = [threading.Thread(target=participant.take_part, daemon=True) for participant in participants]
    for thread in at_work:
        thread.start()
    actor.start(training_id)
    while (training := actor.training(training_id))["state"] not in ("C", "E", "X"):
        time.sleep(0.2)
    if training["state"] != "C":
        raise RuntimeError(f"the training ended in state {training['state']}: {training['reason']}")
    for thread in at_work:
        thread.join()  # they are told of the end a moment later
    return training


def alone(share: Digits, held_out: Digits, *, epochs: int) -> float:
    """The accuracy that a participant reaches with as much training on nothing but its own digits."""
    model = new_model()
    train(model, share, epochs=epochs)
    return accuracy(probabilities(model, held_out), held_out)


def main() -> None:
    options = arguments()
    with contextlib.nullcontext(options.url) if options.url else own_hub() as url:
        shares, held_out = split(options.participants)
        participants = [new_participant(url, share, poll=options.poll, host=options.host) for share in shares]
        actor, _ = new_user(url, "actor")
        models = []
        for seed in range(options.models):
            training_id = create_training(
                actor,
                participants,
                method=options.method,
                rounds=options.rounds,
                uncertainty=options.uncertainty,
                seed=seed,
            )
            training = run_training(actor, training_id, participants)
            models.append(training["model"])
            print(f"Training {training_id}: {len(training['rounds'])} rounds of {options.method}.")
        if len(models) > 1:
            mean_model = actor.upload_mean_model("Mean of digits", models)
            print(f"Model {mean_model} is the mean of {', '.join(models)}.")
        trained = [probabilities(from_bytes(actor.download_model(model)), held_out) for model in models]
    together = accuracy(torch.stack(trained).mean(0), held_out)
    epochs = EPOCHS * len(training["rounds"])
    each = ", ".join(f"{alone(share, held_out, epochs=epochs):.3f}" for share in shares)
    print(f"Accuracy on held-out digits: {together:.3f} together; each participant alone: {each}.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="the hub's address; by default a hub is started, and stopped in the end")
    parser.add_argument("--method", choices=OPTIONS, default="FedAvg", help="how updates become a model")
    parser.add_argument("--rounds", type=int, default=3, help="how often they do")
    parser.add_argument("--participants", type=int, choices=range(2, 11), default=3, help="how many train")
    parser.add_argument("--poll", action="store_true", help="participants ask for work, in place of being told")
    parser.add_argument("--host", default="127.0.0.1", help="an address of this machine that the hub can reach")
    parser.add_argument("--models", type=int, default=1, help="train so many, and make a MEAN model of them")
    parser.add_argument("--uncertainty", choices=("NONE", "ENSEMBLE", "MC_DROPOUT", "SWAG"), default="NONE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
