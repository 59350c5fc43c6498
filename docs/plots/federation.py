"""A federated training without the hub and the network: digits that ten participants hold unevenly.

Every round goes through `aggregate_files`, as on a hub.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.aggregation import Update, aggregate_files, find_strategy
from folkmoot.demo.examples import NUM_LABELS, Examples
from folkmoot.demo.network import Recipe, Weights, evaluate, initial_weights, train
from folkmoot.errors import AggregationFailed
from folkmoot.tensors import TensorFile, write_tensors

NUM_PARTICIPANTS = 10
CONCENTRATION = 0.1
"""Of the Dirichlet distribution that shares out each digit: one or two participants get most of it."""
SMALLEST_SHARE = 20
HELD_OUT = 0.2

LEARNING_RATE = 0.1
ONE_STEP = Recipe(epochs=1, learning_rate=LEARNING_RATE, momentum=0.0, batch_size=16)

MEMORY = Path("/dev/shm")  # noqa: S108 (a folder of our own is made in it)
"""Where files are cheap: a disk takes longer to have a model for good than a participant takes to train it."""

Rows = npt.NDArray[np.int64]
Correction = Callable[[str, npt.NDArray[Any]], Any]


@dataclass(frozen=True)
class Participant:
    """`factor` is what its delta is multiplied by before it is sent; who is honest has 1."""

    id: str
    examples: Examples
    epochs: int = 2
    seconds: float = 1.0
    factor: float = 1.0


@dataclass(frozen=True)
class Run:
    """A line in a plot: a strategy with the options that a training would have."""

    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    proximal_mu: float = 0.0


@dataclass(frozen=True)
class Point:
    """Accuracy on the held-out digits, and on the examples of the participant where it is lowest."""

    seconds: float
    accuracy: float
    worst: float


@dataclass(frozen=True)
class Split:
    """Who has which digits; those who are `left_out` are not waited for, and are asked how they fare all the same."""

    participants: Sequence[Participant]
    held_out: Examples
    left_out: Sequence[Participant] = ()

    def measure(self, weights: Weights, seconds: float) -> Point:
        honest = [each for each in (*self.participants, *self.left_out) if each.factor == 1]
        worst = min(evaluate(weights, each.examples)[1] for each in honest)
        return Point(seconds, evaluate(weights, self.held_out)[1], worst)


class Federation:
    """A model that goes from round to round as files in a folder."""

    def __init__(self, folder: Path, run: Run, seed: int) -> None:
        self._folder, self._run = folder, run
        self._strategy = find_strategy(run.method, run.options)
        self._own_control: dict[str, Weights] = {}
        self.buffer = self._strategy.buffer
        self.round = 0
        write_tensors(self._model(0), initial_weights(seed))

    def weights(self) -> Weights:
        return _load(self._model(self.round))

    def update(self, participant: Participant, began: int, rng: np.random.Generator) -> Update:
        """What the participant makes of the model after `began` rounds."""
        start = _load(self._model(began))
        weights = {name: weight.copy() for name, weight in start.items()}
        loss, _ = evaluate(weights, participant.examples)
        control, correction = self._correction(participant, start)
        steps = _descend(weights, participant, correction, rng)
        for name in weights:
            weights[name] = start[name] + participant.factor * (weights[name] - start[name])
        path = self._folder / f"{participant.id}-{began}"
        write_tensors(path, weights | self._control_deltas(participant, control, start, weights, steps))
        late = self.round - began
        base = self._model(began) if late else None
        metrics = {"local_steps": steps, "loss": loss}
        return Update(path.name, path, len(participant.examples), metrics, base=base, staleness=late)

    def merge(self, updates: Sequence[Update]) -> None:
        before, after = self._state(self.round), self._state(self.round + 1)
        keeps = self._strategy.keeps_state
        aggregate_files(
            self._strategy,
            self._model(self.round),
            updates,
            self._model(self.round + 1),
            state=before if before.exists() else None,
            state_output=after if keeps else None,
            threads=1,
        )
        self.round += 1

    def _correction(self, participant: Participant, start: Weights) -> tuple[Weights, Correction | None]:
        """The server's control variate, where there are any, and what is added to every gradient."""
        mu = self._run.proximal_mu
        if mu:
            return {}, lambda name, weight: mu * (weight - start[name])
        if self._strategy.control_variate is None:
            return {}, None
        zeros = {name: np.zeros_like(weight) for name, weight in start.items()}
        state = self._state(self.round)
        server = {name.partition("/")[2]: value for name, value in _load(state).items()} if self.round else zeros
        own = self._own_control.setdefault(participant.id, zeros)
        return server, lambda name, _: server[name] - own[name]

    def _control_deltas(
        self, participant: Participant, server: Weights, start: Weights, weights: Weights, steps: int
    ) -> Weights:
        """SCAFFOLD's second option: the new control variate is the mean of the gradients along the way."""
        deltas = {
            name: (start[name] - weights[name]) / np.float32(steps * LEARNING_RATE) - server[name] for name in server
        }
        if deltas:
            own = self._own_control[participant.id]
            self._own_control[participant.id] = {name: own[name] + delta for name, delta in deltas.items()}
        return {f"control_variate/{name}": delta for name, delta in deltas.items()}

    def _model(self, number: int) -> Path:
        return self._folder / f"model-{number}"

    def _state(self, number: int) -> Path:
        return self._folder / f"state-{number}"


def synchronous(
    federation: Federation, participants: Sequence[Participant], rng: np.random.Generator
) -> Iterator[float]:
    """Rounds that wait for all; yields the time when each is over."""
    now = 0.0
    while True:
        federation.merge([federation.update(each, federation.round, rng) for each in participants])
        now += max(each.seconds for each in participants)
        yield now


def buffered(federation: Federation, participants: Sequence[Participant], rng: np.random.Generator) -> Iterator[float]:
    """Rounds that end after some updates; who has sent one begins again as soon as there is another model."""
    buffer, updates = federation.buffer, []
    busy = [(each.seconds, number, 0) for number, each in enumerate(participants)]
    idle: list[tuple[int, int]] = []
    while True:
        now, number, began = heapq.heappop(busy)
        if federation.round - began <= buffer.max_staleness:
            updates.append((participants[number], began))
        idle.append((number, began))
        if len(updates) == buffer.size:
            federation.merge([federation.update(*each, rng) for each in updates])
            updates = []
            yield now
        for waiting in [each for each in idle if each[1] < federation.round]:
            idle.remove(waiting)
            heapq.heappush(busy, (now + participants[waiting[0]].seconds, waiting[0], federation.round))


def simulate(run: Run, split: Split, seed: int, *, rounds: int, seconds: float) -> list[Point]:
    """As many rounds as there is time for; fewer where the numbers are no longer finite."""
    points: list[Point] = []
    rng = np.random.default_rng(seed)
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder, np.errstate(all="ignore"):
        federation = Federation(Path(folder), run, seed)
        schedule = buffered if federation.buffer else synchronous
        try:
            for now in islice(schedule(federation, split.participants, rng), rounds):
                if now > seconds:
                    break
                points.append(split.measure(federation.weights(), now))
        except AggregationFailed:
            pass
    return points


def share_out(digits: Examples, seed: int) -> Split:
    """Draw again until everybody has enough to train with."""
    rng = np.random.default_rng(seed)
    held_out, shares = _draw(digits.labels, rng)
    while min(map(len, shares)) < SMALLEST_SHARE:
        held_out, shares = _draw(digits.labels, rng)
    participants = [Participant(f"{number:02}", digits.take(share)) for number, share in enumerate(shares)]
    return Split(participants, digits.take(held_out))


def _draw(labels: Rows, rng: np.random.Generator) -> tuple[Rows, list[Rows]]:
    held_out: list[Rows] = []
    shares: list[list[Rows]] = [[] for _ in range(NUM_PARTICIPANTS)]
    for label in range(NUM_LABELS):
        rows = rng.permutation(np.flatnonzero(labels == label))
        first, rest = np.split(rows, [round(len(rows) * HELD_OUT)])
        held_out.append(first)
        ends = np.cumsum(rng.dirichlet([CONCENTRATION] * NUM_PARTICIPANTS))[:-1] * len(rest)
        for share, part in zip(shares, np.split(rest, ends.round().astype(np.int64)), strict=True):
            share.append(part)
    return np.concatenate(held_out), [np.concatenate(share) for share in shares]


def _descend(
    weights: Weights, participant: Participant, correction: Correction | None, rng: np.random.Generator
) -> int:
    """Change `weights` in place; returns how many steps that took."""
    steps = 0
    for _ in range(participant.epochs):
        rows = rng.permutation(len(participant.examples))
        for first in range(0, len(rows), ONE_STEP.batch_size):
            batch = participant.examples.take(rows[first : first + ONE_STEP.batch_size])
            added = {name: correction(name, weight) for name, weight in weights.items()} if correction else {}
            train(weights, batch, ONE_STEP, rng)
            for name, extra in added.items():
                weights[name] -= np.float32(LEARNING_RATE) * extra
            steps += 1
    return steps


def _load(path: Path) -> Weights:
    return {name: np.array(tensor) for name, tensor in TensorFile.open(path).items()}
