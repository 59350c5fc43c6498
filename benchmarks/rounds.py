"""How long a round takes where training itself takes none: what the hub and its client library add.

`folkmoot serve` in a process of its own, on SQLite with synchronous=FULL; the participants are programs of the client
library, up to ten of them a process each, more in a few processes. Each sends the model back with one number changed;
`options.tests` is never. Prints the median seconds of a round, which lasts until the next one opens, the first not
counted; the hub's processor time; the bytes of bodies that went through it; the most memory that it and the largest
participant's process had; and the time of moving and hashing as many bytes through the same HTTP server.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from common.figures import show
from common.hub import Hub, populate, served
from common.moving import seconds_to_move
from common.processes import MB, Watch, in_a_process
from common.training import create_training, until_told, write_model

from folkmoot.client import Hub as Client
from folkmoot.client import Participant, Task

WARM_UP = 1
"""Rounds at the beginning that are not counted."""
OWN_PROCESSES, FEW = 10, 4
FSYNCS = 50
MOVES = 3


@dataclass(frozen=True)
class Case:
    """A model of so many MB; so many rounds are counted."""

    megabytes: int
    participants: int
    rounds: int

    def __str__(self) -> str:
        return f"{self.megabytes} MB, {self.participants} participants"

    @property
    def most_seconds(self) -> float | None:
        """What a round is to stay under."""
        return 0.25 if (self.megabytes, self.participants) == (1, 10) else None

    @property
    def most_times_moving(self) -> float | None:
        return 2 if (self.megabytes, self.participants) == (100, 10) else None


QUICK = (Case(1, 2, 10), Case(1, 10, 10), Case(10, 2, 5))
FULL = (
    *(Case(1, 2, 20), Case(1, 10, 20), Case(10, 2, 10), Case(10, 10, 10), Case(100, 2, 5), Case(100, 10, 4)),
    *(Case(1, 100, 5), Case(1, 500, 2)),
)


def main() -> None:
    options = parse_arguments()
    for case in options.cases or (QUICK if options.quick else FULL):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            show(f"{case}: an fsync here", fsync_seconds(Path(folder)) * 1000, "ms")
            measure(case, Path(folder))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three small cases")
    parser.add_argument("--case", dest="cases", action="append", type=as_case, metavar="MB,PARTICIPANTS,ROUNDS")
    parser.add_argument("--folder", type=Path, help="where the hub's data are, by default the system's temporary one")
    return parser.parse_args()


def as_case(text: str) -> Case:
    megabytes, participants, rounds = map(int, text.split(","))
    return Case(megabytes, participants, rounds)


def measure(case: Case, folder: Path) -> None:
    accounts = in_a_process(populate, folder / "hub", case.participants + 1)
    with served(folder / "hub", accounts) as hub, taking_part(hub) as pids:
        hub.until_held(case.participants)
        with Watch([hub.process.pid, *pids]) as watch, Client(hub.url, accounts[0].token) as actor:
            write_model(folder / "model.safetensors", case.megabytes)
            rounds = case.rounds + WARM_UP
            training_id = create_training(actor, folder / "model.safetensors", rounds, accounts[1:])
            moved = bodies(hub)
            opened = run(actor, training_id)
            moved = (bodies(hub) - moved) / (case.rounds + WARM_UP)
    seconds = statistics.median(stop - start for start, stop in pairwise(opened))
    show(f"{case}: a round", seconds, "s", target=case.most_seconds)
    show("  processor time of the hub in it", watch.used(opened[0], opened[-1]) / case.rounds, "s")
    if case.participants <= OWN_PROCESSES:
        moving = seconds_to_move(case.megabytes * MB, case.participants, MOVES)
        show("  moving and hashing as many bytes alone", moving, "s")
        show("  a round in times of that", seconds / moving, "", target=case.most_times_moving)
    show("  bytes of bodies in a round", moved / MB, "MB")
    show("  most memory (RssAnon) of the hub", watch.most_memory([hub.process.pid]), "MB", target=250)
    show("  most memory (RssAnon) of a participants' process", watch.most_memory(pids), "MB")


def run(actor: Client, training_id: str) -> list[float]:
    """The moments at which the counted rounds opened, and at which the last of them closed."""
    actor.start(training_id)
    until_told(actor, "TRAINING_FINISHED")
    rounds = actor.training(training_id)["rounds"]
    moments = [*(each["opened_at"] for each in rounds), rounds[-1]["closed_at"]]
    return [datetime.fromisoformat(moment).timestamp() for moment in moments[WARM_UP:]]


@contextmanager
def taking_part(hub: Hub) -> Iterator[list[int]]:
    """The processes of all participants but the actor."""
    tokens = [account.token for account in hub.accounts[1:]]
    size = 1 if len(tokens) <= OWN_PROCESSES else -(-len(tokens) // FEW)
    spawn = get_context("spawn")
    with ExitStack() as stack:
        pids = []
        for first in range(0, len(tokens), size):
            process = spawn.Process(target=take_part, args=(hub.url, tokens[first : first + size], first), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.terminate)
            pids.append(process.pid or 0)
        yield pids


def take_part(url: str, tokens: Sequence[str], number: int) -> None:
    """As so many participants, numbered from `number` on; this process's own thread is the last of them."""
    *others, last = (participant(url, token, number + each) for each, token in enumerate(tokens))
    for other in others:
        threading.Thread(target=other.run, daemon=True).start()
    last.run()


def participant(url: str, token: str, number: int) -> Participant:
    app = Participant(Client(url, token))

    @app.train
    def train(weights: dict[str, np.ndarray], task: Task) -> tuple[dict[str, np.ndarray], int, dict[str, float]]:
        # Not two updates are the same bytes, which the hub would keep once.
        weights["layer0.weight"][number] += task.round + 1
        return weights, 1, {}

    return app


def bodies(hub: Hub) -> float:
    """Bytes of all bodies that have gone through the hub."""
    return hub.figure("folkmoot_http_received_bytes_total") + hub.figure("folkmoot_http_sent_bytes_total")


def fsync_seconds(folder: Path) -> float:
    taken = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
