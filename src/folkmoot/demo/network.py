"""A small neural network in NumPy: one hidden layer, softmax, stochastic gradient descent with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.demo.examples import NUM_LABELS, NUM_PIXELS, Examples

Floats = npt.NDArray[np.float32]
Weights = dict[str, Floats]

HIDDEN_UNITS = 64


@dataclass(frozen=True)
class Recipe:
    """How to train; travels to the participants as the training's `options.local`."""

    epochs: int = 10
    learning_rate: float = 0.1
    momentum: float = 0.9
    batch_size: int = 16
    seed: int = 0


def initial_weights(seed: int = 0) -> Weights:
    """He et al. 2015, https://arxiv.org/abs/1502.01852."""
    rng = np.random.default_rng(seed)
    return {
        "hidden.weight": _random(rng, NUM_PIXELS, HIDDEN_UNITS),
        "hidden.bias": np.zeros(HIDDEN_UNITS, np.float32),
        "output.weight": _random(rng, HIDDEN_UNITS, NUM_LABELS),
        "output.bias": np.zeros(NUM_LABELS, np.float32),
    }


def train(weights: Weights, examples: Examples, recipe: Recipe, rng: np.random.Generator) -> float:
    """Change `weights` in place; returns the mean loss of the last epoch."""
    velocity = {name: np.zeros_like(weight) for name, weight in weights.items()}
    losses: list[float] = []
    for _ in range(recipe.epochs):
        losses = [_step(weights, velocity, batch, recipe) for batch in _batches(examples, recipe.batch_size, rng)]
    return float(np.mean(losses))


def evaluate(weights: Weights, examples: Examples) -> tuple[float, float]:
    """The mean loss and the accuracy, both over all examples."""
    _, log_probabilities = _forward(weights, examples.images)
    hits = log_probabilities.argmax(axis=1) == examples.labels
    return _cross_entropy(log_probabilities, examples.labels), float(hits.mean())


def predict(weights: Weights, inputs: Floats) -> Floats:
    """The probability of each digit, one row for each of `inputs`: the architecture "digits-mlp"."""
    return np.exp(_forward(weights, inputs)[1])


def _random(rng: np.random.Generator, inputs: int, outputs: int) -> Floats:
    return rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs)).astype(np.float32)


def _batches(examples: Examples, size: int, rng: np.random.Generator) -> list[Examples]:
    rows = rng.permutation(len(examples))
    return [examples.take(rows[start : start + size]) for start in range(0, len(rows), size)]


def _step(weights: Weights, velocity: Weights, batch: Examples, recipe: Recipe) -> float:
    hidden, log_probabilities = _forward(weights, batch.images)
    for name, gradient in _gradients(weights, batch, hidden, log_probabilities).items():
        velocity[name] *= recipe.momentum
        velocity[name] -= recipe.learning_rate * gradient
        weights[name] += velocity[name]
    return _cross_entropy(log_probabilities, batch.labels)


def _forward(weights: Weights, images: Floats) -> tuple[Floats, Floats]:
    hidden = np.maximum(images @ weights["hidden.weight"] + weights["hidden.bias"], 0)
    logits = hidden @ weights["output.weight"] + weights["output.bias"]
    logits -= logits.max(axis=1, keepdims=True)
    return hidden, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def _gradients(weights: Weights, batch: Examples, hidden: Floats, log_probabilities: Floats) -> dict[str, Any]:
    at_output = np.exp(log_probabilities)
    at_output[np.arange(len(batch)), batch.labels] -= 1
    at_output /= len(batch)
    at_hidden = (at_output @ weights["output.weight"].T) * (hidden > 0)
    return {
        "hidden.weight": batch.images.T @ at_hidden,
        "hidden.bias": at_hidden.sum(axis=0),
        "output.weight": hidden.T @ at_output,
        "output.bias": at_output.sum(axis=0),
    }


def _cross_entropy(log_probabilities: Floats, labels: npt.NDArray[np.int64]) -> float:
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())
